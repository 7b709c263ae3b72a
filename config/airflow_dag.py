"""A night's job in Airflow (2.7 and later): one task, which is tried again only where that can help.

Airflow's own operators skip a task by its exit code (`skip_on_exit_code`) and try it again otherwise. Here the report says whether
another try can help, and `AirflowFailException` ends the tries where it cannot.
"""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timedelta

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException, AirflowSkipException

# A cap left rows out (3): the files are there, and whoever reads them may want to know.
TRUNCATED = 3
# Somebody holds a lock, or a limit of the source was reached: the next night is as good.
GAVE_WAY = 16
# So long an export that is stopped may take to remove what it has staged.
STOP_SECONDS = 120
# Another run writes there now, and may have ended by the next try.
TAKEN = 22


@dag(schedule="15 2 * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1)
def outhaul_night():
    @task(retries=3, retry_delay=timedelta(minutes=10), execution_timeout=timedelta(hours=6))
    def export(data_interval_end=None, run_id=None) -> dict:
        """Runs the job. Its report is the task's XCom: the exports, their rows, their manifests."""
        # The same for each try of a task, so that a try after a success makes nothing twice. A run id has letters, digits, - and _.
        night = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in run_id)
        command = ["outhaul", "run", "/etc/outhaul/job.toml", "--date", data_interval_end.strftime("%Y-%m-%d")]
        outhaul = subprocess.Popen([*command, "--run-id", night, "--report", "json"], stdout=subprocess.PIPE, text=True)
        try:
            said, _ = outhaul.communicate()
        finally:
            # Where Airflow ends the task, by its timeout or by hand, the export is asked to stop, and removes what it has staged.
            if outhaul.poll() is None:
                outhaul.terminate()
                try:
                    outhaul.wait(timeout=STOP_SECONDS)
                finally:
                    outhaul.kill()
        lines = said.strip().splitlines()
        report = json.loads(lines[-1]) if lines else {}
        if outhaul.returncode == GAVE_WAY:
            raise AirflowSkipException("the source was busy")
        if outhaul.returncode not in (0, TRUNCATED):
            what = "; ".join(error["message"] for error in report.get("errors", [])) or f"exit {outhaul.returncode}"
            # One that was killed has no report, and is tried again.
            if report.get("retryable", True) or outhaul.returncode == TAKEN:
                raise RuntimeError(what)
            raise AirflowFailException(what)
        return report

    export()


outhaul_night()
