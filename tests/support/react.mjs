// The hooks of React that use-export-rows.js calls, for one component at a time.
let current = null;

const slot = (make) => {
  const at = current.next++;
  return (current.slots[at] ??= make());
};

export function useState(first) {
  const own = current;
  const state = slot(() => {
    const made = { value: first };
    made.set = (change) => {
      if (own.gone) throw new Error('state was set after the component had gone');
      made.value = typeof change === 'function' ? change(made.value) : change;
      draw(own);
    };
    return made;
  });
  return [state.value, state.set];
}

export const useRef = (first) => slot(() => ({ current: first }));
export const useCallback = (callback) => slot(() => callback);
export const useEffect = (effect) => {
  const own = current;
  slot(() => ({ end: own.ends.push(effect()) }));
};

function draw(component) {
  const before = current;
  current = component;
  component.next = 0;
  component.view = component.body();
  current = before;
}

export function render(body) {
  const component = { body, slots: [], ends: [], gone: false };
  draw(component);
  const view = () => component.view;
  view.component = component;
  return view;
}

export function unmount({ component }) {
  component.gone = true;
  for (const end of component.ends) end();
}
