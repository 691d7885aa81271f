//! How often a command is retried, and the pauses before.

use std::time::Duration;

/// Pauses before the first, second and third retry. Together they exceed every budget, so the last one is
/// cut to the rest of the budget: see [`pause_before`].
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];
/// No attempt is made with less time than this.
pub(super) const LEAST_ATTEMPT: Duration = Duration::from_millis(5);
/// The time that the last retry needs at least: a new connection and one round trip.
const LAST_ATTEMPT: Duration = Duration::from_millis(20);
/// The last retry is not made sooner than this after the one before: nothing would have changed.
const SHORTEST_LAST_PAUSE: Duration = Duration::from_millis(50);
/// How many retries there are at most.
pub(super) const RETRIES: usize = PAUSES.len();

/// The pause before the retry with this number, counted from 0, or nothing when the retry does not fit
/// into the rest of the budget. Only the last pause is cut: the rest of the budget has no other use then.
pub(super) fn pause_before(retry: usize, left: Duration) -> Option<Duration> {
    let full = *PAUSES.get(retry)?;
    if retry + 1 < PAUSES.len() {
        return (left >= full + LEAST_ATTEMPT).then_some(full);
    }
    let pause = full.min(left.saturating_sub(LAST_ATTEMPT));
    (pause >= SHORTEST_LAST_PAUSE).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(retry: usize, left: u64) -> Option<u128> {
        pause_before(retry, Duration::from_millis(left)).map(|pause| pause.as_millis())
    }

    #[test]
    fn the_first_two_pauses_are_kept_in_full_or_the_retry_is_not_made() {
        for (retry, left, pause) in [
            (0, 400, Some(100)),
            (0, 105, Some(100)),
            (0, 104, None),
            (1, 300, Some(200)),
            (1, 205, Some(200)),
            (1, 204, None),
        ] {
            assert_eq!(
                milliseconds(retry, left),
                pause,
                "retry {retry}, {left} ms left"
            );
        }
    }

    #[test]
    fn the_last_pause_is_cut_to_what_is_left_of_the_budget() {
        for (left, pause) in [
            (1_000, Some(400)),
            (420, Some(400)),
            (200, Some(180)),
            (100, Some(80)),
            (70, Some(50)),
            (69, None),
            (0, None),
        ] {
            assert_eq!(milliseconds(2, left), pause, "{left} ms left");
        }
    }

    #[test]
    fn there_is_no_fourth_retry() {
        assert_eq!(milliseconds(3, 10_000), None);
    }
}
