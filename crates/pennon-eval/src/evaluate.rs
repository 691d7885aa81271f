//! The decision itself.

use crate::{Flag, Override, UserId, bucket_of};

/// Whether the flag is on for this caller. The order of the rules is the contract:
///
/// 1. a flag that is not enabled is off for everyone, included users too (a kill switch);
/// 2. an override decides for its user;
/// 3. 100 % is on and 0 % is off for everyone;
/// 4. a caller without an id gets `true` in between;
/// 5. everyone else by [`bucket`](crate::bucket), or by one of the flag's own if it has a salt: on when
///    the bucket is below the percentage.
///
/// The definition of a typed flag is not looked at: [`Ruleset`](crate::Ruleset) does that.
#[must_use]
pub fn evaluate(flag: &Flag, user: Option<&UserId>) -> bool {
    if !flag.enabled {
        return false;
    }
    let by_name = user.and_then(|user| flag.overrides.get(user.as_str()));
    match by_name {
        Some(Override::Include | Override::Variant(_)) => return true,
        Some(Override::Exclude) => return false,
        None => {}
    }
    match (flag.rollout_percentage.percent(), user) {
        (0, _) => false,
        (100.., _) | (_, None) => true,
        (percent, Some(user)) => bucket_of(flag.salt.as_deref().unwrap_or(""), user) < percent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rollout;

    fn flag(enabled: bool, percent: i64) -> Flag {
        Flag {
            enabled,
            rollout_percentage: Rollout::parse(percent).expect("in range"),
            ..Flag::default()
        }
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("a non-empty id")
    }

    fn with_override(mut flag: Flag, id: &str, kind: Override) -> Flag {
        flag.overrides.insert(id.to_owned(), kind);
        flag
    }

    #[test]
    fn a_disabled_flag_beats_everything() {
        let included = with_override(flag(false, 100), "alice", Override::Include);
        assert!(!evaluate(&included, Some(&user("alice"))));
        assert!(!evaluate(&flag(false, 100), None));
    }

    #[test]
    fn an_override_beats_the_rollout_both_ways() {
        let excluded = with_override(flag(true, 100), "alice", Override::Exclude);
        assert!(!evaluate(&excluded, Some(&user("alice"))));
        assert!(evaluate(&excluded, Some(&user("Alice"))), "case matters");
        let included = with_override(flag(true, 0), "alice", Override::Include);
        assert!(evaluate(&included, Some(&user("alice"))));
        assert!(!evaluate(&included, None));
    }

    #[test]
    fn nobody_gets_true_between_the_ends() {
        for percent in [1, 50, 99] {
            assert!(evaluate(&flag(true, percent), None));
        }
        assert!(!evaluate(&flag(true, 0), None));
        assert!(evaluate(&flag(true, 100), None));
    }

    #[test]
    fn a_user_is_in_when_the_bucket_is_below_the_percentage() {
        // Users on both sides of each edge: bucket 0, 4, 5, 24, 25, 49, 50, 99.
        let edges = [
            ("user-18", 0),
            ("user-20", 4),
            ("user-37", 5),
            ("user-113", 24),
            ("user-76", 25),
            ("user-8", 49),
            ("user-51", 50),
            ("user-118", 99),
        ];
        for (id, bucket) in edges {
            assert!(!evaluate(&flag(true, bucket), Some(&user(id))), "{id}");
            assert!(evaluate(&flag(true, bucket + 1), Some(&user(id))), "{id}");
        }
    }

    #[test]
    fn raising_the_percentage_only_ever_adds_users() {
        for number in 0..2_000 {
            let someone = user(&format!("user-{number}"));
            let mut was_in = false;
            for percent in 0..=100 {
                let is_in = evaluate(&flag(true, percent), Some(&someone));
                assert!(is_in || !was_in, "{someone:?} fell out at {percent} %");
                was_in = is_in;
            }
            assert!(was_in);
        }
    }
}
