//! The number of retries of a command, and the pauses before them.

use std::time::Duration;

/// The pauses before the first, second and third retry. Their sum exceeds every budget, so [`pause_before`] cuts
/// the last one.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];
/// An attempt with less time than this is not made.
pub(super) const MIN_ATTEMPT: Duration = Duration::from_millis(5);
/// The time reserved for the last retry: a new connection and one round trip.
const LAST_ATTEMPT: Duration = Duration::from_millis(20);
/// The least pause before the last retry. After a shorter one, the retry would probably fail like the previous one.
const MIN_LAST_PAUSE: Duration = Duration::from_millis(50);
/// The largest number of retries.
pub(super) const RETRIES: usize = PAUSES.len();

/// The pause before a retry, counted from 0; `None` if the retry does not fit into the rest of the budget. Only the
/// last pause is cut, because nothing else needs the rest of the budget then.
pub(super) fn pause_before(retry: usize, left: Duration) -> Option<Duration> {
    let full = *PAUSES.get(retry)?;
    if retry + 1 < PAUSES.len() {
        return (left >= full + MIN_ATTEMPT).then_some(full);
    }
    let pause = full.min(left.saturating_sub(LAST_ATTEMPT));
    (pause >= MIN_LAST_PAUSE).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(retry: usize, left: u64) -> Option<u128> {
        pause_before(retry, Duration::from_millis(left)).map(|pause| pause.as_millis())
    }

    #[test]
    fn the_first_two_retries_have_their_full_pause_or_are_not_made() {
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
    fn the_last_pause_is_cut_to_the_rest_of_the_budget() {
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
