"""What the demo comes to, for JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .checks import check, most_at_once
from .history import History
from .timer_checks import check_timers
from .timer_history import TimerHistory

__all__ = ["summary"]


def summary(history: History, timers: TimerHistory, took: float) -> dict[str, Any]:
    """All that is worth telling."""
    checks = check(history)
    if timers.armings or not history.troubles:  # else there were none, as the demo broke off
        checks += check_timers(timers)
    return {
        "ok": not any(each.faults for each in checks),
        "took": round(took, 3),
        **of_permits(history),
        "timers": of_timers(timers),
        "checks": {
            each.key: {"ok": not each.faults, "promise": each.promise, "faults": each.faults}
            for each in checks
        },
    }


def of_permits(history: History) -> dict[str, Any]:
    """What is worth telling of the permits and the signal."""
    kinds = Counter(hold.worker.partition("-")[0] for hold in history.holds)
    returned = []
    for hold in history.cut_off():
        heir = history.next_after(hold)
        after = None if heir is None else round(heir.granted - history.killed[hold.worker], 3)
        returned.append(
            {"worker": hold.worker, "slot": hold.slot, "fence": hold.fence, "back_after": after}
        )
    return {
        "permits": history.count,
        "permit_ttl": history.permit_ttl,
        "grants": dict(sorted(kinds.items())),
        "most_at_once": most_at_once(history),
        "lost": history.lost,
        "killed": returned,
        "signal": {
            "sent_by": [worker for worker, _ in history.sent],
            "woken": [worker for worker, _ in history.woken],
        },
    }


def of_timers(history: TimerHistory) -> dict[str, Any]:
    """What is worth telling of the timers."""
    taken = []
    for run in history.cut_off():
        heir = history.next_after(run)
        after = None if heir is None else round(heir.began - history.killed[run.worker], 3)
        by = None if heir is None else heir.worker
        taken.append({"timer": run.timer, "killed": run.worker, "by": by, "after": after})
    timers = dict.fromkeys(arming.timer for arming in history.armings)
    return {
        "set": len(history.armings),
        "runs": len(history.runs),
        "lease": history.lease,
        "lateness": {
            timer: [round(run.lateness, 6) for run in history.of(timer) if run.attempt == 1]
            for timer in timers
        },
        "dead": [
            {"timer": timer, "attempts": attempts, "error": error}
            for timer, (attempts, error) in history.dead.items()
        ],
        "taken_over": taken,
    }
