//! An update of a deployed stack replaces no resource that holds data or is referred to from outside.
//!
//! `CloudFormation` replaces a resource if its logical id, its type or one of the properties below changes. Replaced
//! databases and user pools lose their data, replaced secrets their values; other replacements break external
//! references: addresses, peerings, subscriptions, saved logs. `replacement.json` is a snapshot of the ids, types
//! and properties in every profile.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::stack::{Profile, Stack, profiles, text};
use super::{Mistake, read, yaml};

const SNAPSHOT: &str = "tests/it/template/replacement.json";

/// Types, and their properties that cannot be changed in place.
const IMMUTABLE: [(&str, &[&str]); 23] = [
    ("AWS::Serverless::HttpApi", &["StageName", "Domain"]),
    (
        "AWS::Cognito::UserPool",
        &[
            "AliasAttributes",
            "UsernameAttributes",
            "UsernameConfiguration",
            "Schema",
        ],
    ),
    (
        "AWS::Cognito::UserPoolClient",
        &["UserPoolId", "GenerateSecret"],
    ),
    ("AWS::Cognito::UserPoolDomain", &["UserPoolId", "Domain"]),
    ("AWS::Cognito::UserPoolGroup", &["UserPoolId", "GroupName"]),
    ("AWS::EC2::EIP", &["Domain"]),
    ("AWS::EC2::RouteTable", &["VpcId"]),
    (
        "AWS::EC2::SecurityGroup",
        &["GroupDescription", "GroupName", "VpcId"],
    ),
    (
        "AWS::EC2::Subnet",
        &["AvailabilityZone", "CidrBlock", "VpcId"],
    ),
    ("AWS::EC2::VPC", &["CidrBlock", "InstanceTenancy"]),
    (
        "AWS::EC2::VPCCidrBlock",
        &["VpcId", "AmazonProvidedIpv6CidrBlock"],
    ),
    (
        "AWS::ElastiCache::ParameterGroup",
        &["CacheParameterGroupFamily", "Description"],
    ),
    // Removing the token also replaces a group that has one.
    (
        "AWS::ElastiCache::ReplicationGroup",
        &[
            "ReplicationGroupId",
            "AtRestEncryptionEnabled",
            "AuthToken",
            "CacheSubnetGroupName",
            "DataTieringEnabled",
            "Engine",
            "KmsKeyId",
            "Port",
            "SnapshotArns",
            "SnapshotName",
            "TransitEncryptionEnabled",
        ],
    ),
    ("AWS::ElastiCache::SubnetGroup", &["CacheSubnetGroupName"]),
    ("AWS::ElastiCache::User", &["UserId", "UserName"]),
    ("AWS::ElastiCache::UserGroup", &["UserGroupId"]),
    ("AWS::Logs::LogGroup", &["LogGroupName"]),
    (
        "AWS::RDS::DBInstance",
        &[
            "DBInstanceIdentifier",
            "AvailabilityZone",
            "CharacterSetName",
            "DBName",
            "DBSubnetGroupName",
            "Engine",
            "KmsKeyId",
            "MasterUsername",
            "Port",
            "StorageEncrypted",
        ],
    ),
    (
        "AWS::RDS::DBParameterGroup",
        &["DBParameterGroupName", "Description", "Family"],
    ),
    ("AWS::RDS::DBSubnetGroup", &["DBSubnetGroupName"]),
    ("AWS::SNS::Topic", &["TopicName"]),
    // A change of GenerateSecretString generates a new value.
    (
        "AWS::SecretsManager::Secret",
        &["Name", "GenerateSecretString"],
    ),
    (
        "AWS::SecretsManager::SecretTargetAttachment",
        &["SecretId", "TargetId", "TargetType"],
    ),
];

/// By logical id: each form of a resource, and the numbers of the profiles that have it.
type Snapshot = BTreeMap<String, BTreeMap<String, String>>;

/// The profiles of [`profiles`], and one with both caches for each way to log in that these lack.
fn all_profiles() -> Vec<Profile> {
    let mut all = profiles();
    for access in ["prepare", "switch", "moved", "users"] {
        all.push(Profile::from([
            ("CacheMode", "both-use-single"),
            ("CacheAccess", access),
        ]));
    }
    all
}

fn snapshot_of(template: &str) -> Snapshot {
    let template = yaml::parse(template);
    let mut snapshot = Snapshot::new();
    for (number, profile) in all_profiles().into_iter().enumerate() {
        let stack = Stack::of(&template, profile);
        for (id, resource) in stack.all() {
            let known = IMMUTABLE.iter().find(|(kind, _)| resource["Type"] == *kind);
            let Some((kind, names)) = known else { continue };
            let mut form = Map::from_iter([("Type".to_owned(), json!(kind))]);
            for name in *names {
                if let Some(value) = resource["Properties"].get(name) {
                    form.insert((*name).to_owned(), value.clone());
                }
            }
            let forms = snapshot.entry(id.to_owned()).or_default();
            let numbers = forms.entry(Value::Object(form).to_string()).or_default();
            if !numbers.is_empty() {
                numbers.push(' ');
            }
            numbers.push_str(&number.to_string());
        }
    }
    snapshot
}

/// Writes one form of a resource per line.
fn written(snapshot: &Snapshot) -> String {
    let mut lines = Vec::new();
    for (id, forms) in snapshot {
        let forms = forms.iter().map(|(form, numbers)| {
            let numbers = json!(numbers);
            format!("    {{\"profiles\": {numbers}, \"resource\": {form}}}")
        });
        let forms = forms.collect::<Vec<_>>().join(",\n");
        lines.push(format!("  \"{id}\": [\n{forms}\n  ]"));
    }
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

fn stored_snapshot() -> Snapshot {
    let stored: Value = serde_json::from_str(&read(SNAPSHOT)).expect("JSON");
    let mut snapshot = Snapshot::new();
    for (id, forms) in stored.as_object().expect("an object") {
        let forms = forms.as_array().expect("forms").iter();
        let forms = forms.map(|it| (it["resource"].to_string(), text(&it["profiles"]).to_owned()));
        snapshot.insert(id.clone(), forms.collect());
    }
    snapshot
}

/// The resources that an update to this template would replace, in a stack of the snapshot.
fn replaced(template: &str) -> Vec<String> {
    let (before, after) = (stored_snapshot(), snapshot_of(template));
    let mut ids: Vec<_> = before.keys().chain(after.keys()).collect();
    ids.sort();
    ids.dedup();
    let mut changed = Vec::new();
    for id in ids {
        let what = match (before.get(id), after.get(id)) {
            (Some(_), None) => "is gone",
            (None, _) => "is new",
            (Some(before), Some(after)) if before != after => "is replaced in some profile",
            (Some(_), Some(_)) => continue,
        };
        changed.push(format!("{id} {what}"));
    }
    changed
}

#[test]
fn an_update_replaces_nothing_that_holds_data() {
    let template = read("template.yaml");
    if std::env::var_os("WRITE_SNAPSHOT").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(SNAPSHOT);
        std::fs::write(path, written(&snapshot_of(&template))).expect("written");
    }
    let replaced = replaced(&template);
    assert!(
        replaced.is_empty(),
        "{replaced:#?}\nDeployed stacks lose these, or get new ones. If that is right, describe the update in \
         docs/operations.md, and set WRITE_SNAPSHOT=1 to write {SNAPSHOT} anew."
    );
}

#[test]
fn the_snapshot_has_every_kind_of_resource_that_is_kept() {
    let snapshot = stored_snapshot();
    for (kind, _) in IMMUTABLE {
        let kind = format!("\"Type\":\"{kind}\"");
        let mut forms = snapshot.values().flat_map(BTreeMap::keys);
        assert!(forms.any(|form| form.contains(&kind)), "{kind}");
    }
}

fn assert_replaced(mistake: &Mistake, expected: &[&str]) {
    assert_eq!(replaced(&mistake.plant(&read("template.yaml"))), expected);
}

#[test]
fn a_database_with_another_logical_id_is_found() {
    let mistake = Mistake("Database", "  Database:\n", "  MainDatabase:\n");
    assert_replaced(&mistake, &["Database is gone", "MainDatabase is new"]);
}

#[test]
fn a_user_pool_with_other_usernames_is_found() {
    let mistake = Mistake(
        "UserPool",
        "UsernameAttributes: [email]",
        "AliasAttributes: [email]",
    );
    assert_replaced(&mistake, &["UserPool is replaced in some profile"]);
}

#[test]
fn a_cache_that_loses_its_token_is_found() {
    let mistake = Mistake(
        "Conditions",
        "CreateCachesWithUsers: !Equals [!Ref CacheAccess, users]",
        "CreateCachesWithUsers: !Equals [!Ref CacheAccess, token]",
    );
    assert_replaced(
        &mistake,
        &[
            "ClusterCache is replaced in some profile",
            "SingleCache is replaced in some profile",
        ],
    );
}

#[test]
fn a_secret_with_another_name_is_found() {
    let mistake = Mistake("CacheMacSecret", "/cache-mac", "/mac");
    assert_replaced(&mistake, &["CacheMacSecret is replaced in some profile"]);
}

#[test]
fn a_database_that_is_gone_in_one_profile_is_found() {
    let mistake = Mistake(
        "Database",
        "Condition: CreateDatabase",
        "Condition: UseCanary",
    );
    assert_replaced(&mistake, &["Database is replaced in some profile"]);
}

#[test]
fn another_kind_of_resource_with_the_same_id_is_found() {
    let mistake = Mistake(
        "HttpApi",
        "AWS::Serverless::HttpApi",
        "AWS::Serverless::Api",
    );
    assert_replaced(&mistake, &["HttpApi is gone"]);
}
