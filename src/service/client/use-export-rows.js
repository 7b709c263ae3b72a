// A React hook over client.js: const { state, rows, bytes, error, start, cancel } = useExportRows(options).
import { useCallback, useEffect, useRef, useState } from 'react';
import { exportRowsToBlob } from './client.js';

const IDLE = { state: 'idle', rows: 0, bytes: 0, error: null };

/** `start(more)` resolves to what exportRowsToBlob gives, or to null; starting again and unmounting cancel. */
export function useExportRows(options) {
  const [view, setView] = useState(IDLE);
  const running = useRef(null);
  const latest = useRef(options);
  latest.current = options;

  const start = useCallback(async (more = {}) => {
    running.current?.abort();
    const own = new AbortController();
    running.current = own;
    // What an older run has to say is of no interest any more, nor is anything once the component has gone.
    const show = (change) => running.current === own && setView((before) => ({ ...before, ...change }));
    show({ ...IDLE, state: 'streaming' });
    try {
      const given = { ...latest.current, ...more, signal: own.signal, onProgress: show };
      const { rows, bytes, truncated, ...rest } = await exportRowsToBlob(given);
      show({ state: truncated ? 'truncated' : 'done', rows, bytes });
      return { rows, bytes, truncated, ...rest };
    } catch (error) {
      show(own.signal.aborted ? { state: 'cancelled' } : { state: 'error', error });
      return null;
    }
  }, []);

  const cancel = useCallback(() => running.current?.abort(), []);
  useEffect(() => () => {
    const last = running.current;
    running.current = null;
    last?.abort();
  }, []);
  return { ...view, start, cancel };
}
