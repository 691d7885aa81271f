//! The users of the caches: which user each function logs in as, and that moving from the token to users
//! (`docs/deployment/cache-users.md`) replaces no existing cache.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::functions::readable_secrets;
use super::stack::{Profile, Stack, reference};
use super::yaml::parse;

const ACCESS: [&str; 5] = ["token", "prepare", "switch", "moved", "users"];
/// Functions that invalidate the cache.
const WRITERS: [&str; 9] = [
    "guard",
    "manage-environments",
    "manage-flags",
    "manage-keys",
    "overrides",
    "ramps",
    "reconcile",
    "schedules",
    "update-flag",
];

fn stack(template: &Value, access: &'static str, cache: &'static str) -> Stack {
    let profile = Profile::from([
        ("CacheAccess", access),
        ("CacheMode", cache),
        ("AWS::Region", "us-east-1"),
    ]);
    Stack::of(template, profile)
}

#[test]
fn moving_from_a_token_to_users_does_not_replace_the_cache() {
    let template = parse(&super::read("template.yaml"));
    for (mode, number) in [
        ("single", 1),
        ("both-use-single", 2),
        ("both-use-cluster", 2),
        ("cluster", 1),
    ] {
        let groups = |access| {
            let stack = stack(&template, access, mode);
            let groups = stack.of_type("AWS::ElastiCache::ReplicationGroup");
            let groups: Vec<(String, Value)> = groups
                .map(|(id, group)| (id.to_owned(), group.clone()))
                .collect();
            groups
        };
        let token = groups("token");
        assert_eq!(token.len(), number, "{mode}");
        for access in ["prepare", "switch", "moved"] {
            assert_eq!(groups(access), token, "{mode}, {access}");
        }
        for (id, group) in &token {
            assert!(group["AuthToken"].is_object(), "{mode}: {id}");
            assert!(group["UserGroupIds"].is_null(), "{mode}: {id}");
        }
        let users = groups("users");
        assert_eq!(users.len(), number, "{mode}");
        for (id, group) in users {
            assert!(group["AuthToken"].is_null(), "{mode}: {id}");
            assert_eq!(group["UserGroupIds"], json!([reference("CacheUsers")]));
        }
    }
}

#[test]
fn every_function_can_read_only_the_cache_secrets_that_it_needs() {
    let template = parse(&super::read("template.yaml"));
    for access in ACCESS {
        for mode in ["none", "single", "cluster"] {
            let stack = stack(&template, access, mode);
            for function in stack.functions() {
                let handler = function.handler.as_str();
                let secret = &function.properties["Environment"]["Variables"]["REDIS_SECRET_ARN"];
                let may_read = readable_secrets(&stack, function);
                let what = format!("{access}, {mode}, {handler}: {secret}, {may_read:?}");
                if *secret == "" {
                    assert!(!may_read.iter().any(|id| id.starts_with("Cache")), "{what}");
                    continue;
                }
                assert_ne!(mode, "none", "{what}");
                let of_user = if WRITERS.contains(&handler) {
                    "CacheWriterUrlSecret"
                } else {
                    "CacheReaderUrlSecret"
                };
                let own = match access {
                    "token" | "prepare" => "CacheUrlSecret",
                    _ => of_user,
                };
                assert_eq!(*secret, reference(own), "{what}");
                let mut wanted = BTreeSet::from([own, "CacheMacSecret"]);
                // Versions that are being replaced may log in as before the step, in both directions.
                if access == "switch" || access == "prepare" {
                    wanted.extend(["CacheUrlSecret", of_user]);
                }
                let cache = may_read.iter().map(String::as_str);
                let cache: BTreeSet<&str> = cache.filter(|id| id.starts_with("Cache")).collect();
                assert_eq!(cache, wanted, "{what}");
            }
        }
    }
}

#[test]
fn the_users_of_the_caches_differ_in_del_wait_and_memory_usage_only() {
    let template = parse(&super::read("template.yaml"));
    let stack = stack(&template, "switch", "cluster");
    let rules = |id: &str| {
        let access = &stack.get(id)["Properties"]["AccessString"]["Fn::Sub"];
        let access = access.as_str().expect("an access string");
        let rules: BTreeSet<String> = access.split_whitespace().map(str::to_owned).collect();
        rules
    };
    let (reader, writer) = (rules("CacheReaderUser"), rules("CacheWriterUser"));
    let more: Vec<&String> = writer.difference(&reader).collect();
    assert_eq!(more, ["+del", "+memory|usage", "+wait"]);
    assert!(reader.is_subset(&writer));
    assert_eq!(
        rules("CacheDefaultUser"),
        writer,
        "while the token is in use, the default user differs from the writers"
    );
    for rules in [&reader, &writer] {
        assert!(rules.contains("-@all") && rules.contains("resetchannels"));
        assert!(rules.contains("~${CacheKeyPrefix}feature_flags:*"));
        let keys = rules.iter().filter(|rule| rule.starts_with(['~', '%']));
        assert_eq!(keys.count(), 1, "{rules:?}");
        let categories = rules.iter().filter(|rule| rule.starts_with("+@"));
        assert_eq!(categories.count(), 0, "{rules:?}");
    }
    for access in ["moved", "users"] {
        let stack = self::stack(&template, access, "cluster");
        let off = &stack.get("CacheDefaultUser")["Properties"]["AccessString"];
        assert_eq!(*off, "off resetchannels -@all", "{access}");
    }
}
