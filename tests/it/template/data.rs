//! Cache and database: encryption, backups, and URLs that name the cache in use.

use serde_json::{Value, json};

use super::stack::{Stack, list, reference, target, text};
use super::{Mistake, Problems, planted};

pub(super) fn check(stack: &Stack, problems: &mut Problems) {
    let mode = stack.profile["CacheMode"];
    let clustered = ["both-use-single", "both-use-cluster", "cluster"].contains(&mode);
    let single = mode != "none" && mode != "cluster";
    for (id, wanted) in [("SingleCache", single), ("ClusterCache", clustered)] {
        let exists = !stack.get(id).is_null();
        problems.unless(
            exists == wanted,
            id,
            format!("{mode}: expected {wanted}, exists {exists}"),
        );
    }
    let loose = stack.of_type("AWS::ElastiCache::CacheCluster").next();
    problems.unless(
        loose.is_none(),
        "cache",
        "a CacheCluster has neither TLS nor a password",
    );
    for (id, group) in stack.of_type("AWS::ElastiCache::ReplicationGroup") {
        check_group(id, group, problems);
    }
    check_shapes(stack, problems);
    check_url(stack, problems);
    check_replica_reads(stack, problems);
    check_installation(stack, problems);
    check_secrets(stack, problems);
    check_mac_key(stack, problems);
    check_database(stack, problems);
}

fn check_group(id: &str, group: &Value, problems: &mut Problems) {
    let wanted = [
        (
            "TransitEncryptionEnabled",
            json!(true),
            "not encrypted in transit",
        ),
        (
            "AtRestEncryptionEnabled",
            json!(true),
            "not encrypted at rest",
        ),
        (
            "SnapshotRetentionLimit",
            json!(1),
            "snapshots are not kept for one day",
        ),
        (
            "SnapshotWindow",
            json!("02:00-04:00"),
            "no snapshot between 02:00 and 04:00",
        ),
        ("Port", json!(6379), "another port"),
        (
            "CacheNodeType",
            reference("CacheNodeType"),
            "another size than was chosen",
        ),
        (
            "Engine",
            reference("CacheEngine"),
            "another engine than was chosen",
        ),
        (
            "SecurityGroupIds",
            json!([reference("CacheSecurityGroup")]),
            "not in its security group",
        ),
        (
            "CacheSubnetGroupName",
            reference("CacheSubnets"),
            "not in its subnets",
        ),
    ];
    for (name, value, what) in wanted {
        problems.unless(group[name] == value, id, what);
    }
    let password = "{{resolve:secretsmanager:${CacheTokenSecret}:SecretString}}";
    problems.unless(group["AuthToken"]["Fn::Sub"] == password, id, "no password");
    let apart = do_not_overlap(
        text(&group["SnapshotWindow"]),
        text(&group["PreferredMaintenanceWindow"]),
    );
    problems.unless(apart, id, "maintenance during the snapshot");
}

/// Whether a daily window, such as `02:00-04:00`, and a weekly one, such as `sun:04:30-sun:05:30`, do not overlap.
fn do_not_overlap(daily: &str, weekly: &str) -> bool {
    let minutes = |time: &str| -> Option<u32> {
        let (hours, minutes) = time.rsplit_once(':')?;
        let hours = hours.rsplit(':').next()?;
        Some(hours.parse::<u32>().ok()? * 60 + minutes.parse::<u32>().ok()?)
    };
    let span = |window: &str| -> Option<(u32, u32)> {
        let (from, to) = window.split_once('-')?;
        Some((minutes(from)?, minutes(to)?))
    };
    match (span(daily), span(weekly)) {
        (Some((from, to)), Some((begin, end))) => begin < end && (to <= begin || end <= from),
        _ => false,
    }
}

/// One node, or a primary with two replicas in three zones and automatic failover.
fn check_shapes(stack: &Stack, problems: &mut Problems) {
    let properties = |id: &str| stack.get(id)["Properties"].clone();
    let parameters = |group: &Value| {
        let parameters = target(&group["CacheParameterGroupName"]).to_owned();
        stack.get(&parameters)["Properties"]["Properties"].clone()
    };
    let single = properties("SingleCache");
    if !single.is_null() {
        let one = single["NumCacheClusters"] == 1 && single["AutomaticFailoverEnabled"] == false;
        problems.unless(one, "SingleCache", "not one node");
        let plain = parameters(&single)["cluster-enabled"].is_null();
        problems.unless(plain, "SingleCache", "parameters of a cluster");
        let evicts = parameters(&single)["maxmemory-policy"] == "allkeys-lru";
        problems.unless(evicts, "SingleCache", "refuses writes when it is full");
    }
    let cluster = properties("ClusterCache");
    if !cluster.is_null() {
        let nodes = cluster["NumNodeGroups"] == 1 && cluster["ReplicasPerNodeGroup"] == 2;
        problems.unless(nodes, "ClusterCache", "not a primary and two replicas");
        let fails_over = cluster["AutomaticFailoverEnabled"] == true;
        problems.unless(fails_over, "ClusterCache", "no automatic failover");
        problems.unless(
            cluster["MultiAZEnabled"] == true,
            "ClusterCache",
            "not in several zones",
        );
        let sharded = parameters(&cluster)["cluster-enabled"] == "yes";
        problems.unless(sharded, "ClusterCache", "parameters of a single node");
        let evicts = parameters(&cluster)["maxmemory-policy"] == "allkeys-lru";
        problems.unless(evicts, "ClusterCache", "refuses writes when it is full");
    }
    let default = &stack.parameters["CacheNodeType"]["Default"];
    problems.unless(
        default == "cache.t3.micro",
        "CacheNodeType",
        "another default than cache.t3.micro",
    );
}

/// The first URL is that of the cache in use; functions invalidate the caches of all URLs.
fn check_url(stack: &Stack, problems: &mut Problems) {
    let mode = stack.profile["CacheMode"];
    let secret = &stack.get("CacheUrlSecret")["Properties"]["SecretString"];
    let urls = secret["Fn::Join"][1]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let single = (
        "rediss://:",
        json!({ "Fn::GetAtt": ["SingleCache", "PrimaryEndPoint.Address"] }),
    );
    let cluster = (
        "rediss-cluster://:",
        json!({ "Fn::GetAtt": ["ClusterCache", "ConfigurationEndPoint.Address"] }),
    );
    let wanted = match mode {
        "none" => vec![],
        "cluster" => vec![cluster],
        "both-use-cluster" => vec![cluster, single],
        "both-use-single" => vec![single, cluster],
        _ => vec![single],
    };
    problems.unless(
        urls.len() == wanted.len(),
        "CacheUrlSecret",
        format!("{mode}: {} URLs", urls.len()),
    );
    for (secret, (scheme, endpoint)) in urls.iter().zip(wanted) {
        let url = text(&secret["Fn::Sub"][0]);
        let host = &secret["Fn::Sub"][1]["Host"];
        problems.unless(
            *host == endpoint,
            "CacheUrlSecret",
            format!("{mode}: leads to {host}"),
        );
        let fits = url.starts_with(scheme);
        problems.unless(fits, "CacheUrlSecret", format!("{mode}: not {scheme}"));
        problems.unless(
            url.contains("{{resolve:secretsmanager:${CacheTokenSecret}:SecretString}}"),
            "CacheUrlSecret",
            "another password than the cache's",
        );
    }
    let raised = stack.get("CacheTokenSecret")["Properties"]["Name"]["Fn::Sub"]
        .as_str()
        .is_none_or(|name| name.contains("${CacheTokenGeneration}"));
    problems.unless(
        raised,
        "CacheTokenSecret",
        "a password that cannot be changed",
    );
    for function in stack.functions() {
        let value = &function.properties["Environment"]["Variables"]["REDIS_SECRET_ARN"];
        let has_secret = *value == reference("CacheUrlSecret");
        let empty = *value == "";
        let fits = if mode == "none" {
            empty
        } else {
            has_secret || empty
        };
        problems.unless(fits, &function.id, format!("{mode}: its cache is {value}"));
    }
}

fn check_database(stack: &Stack, problems: &mut Problems) {
    let created = stack.has("DatabaseMode", "rds");
    let one = if created {
        "DatabaseSecretAttachment"
    } else {
        "ExternalDatabaseSecretArn"
    };
    for function in stack.functions() {
        let variables = &function.properties["Environment"]["Variables"];
        let wanted = match (role_of(&function.id), stack.profile["DatabaseRoles"]) {
            (None, _) => "",
            (Some("owner"), _) | (Some(_), "one") => one,
            (Some("write"), _) => "DatabaseWriteSecret",
            (Some("count"), _) => "DatabaseCountSecret",
            (Some(_), _) => "DatabaseReadSecret",
        };
        let value = target(&variables["DATABASE_SECRET_ARN"]).to_owned();
        problems.unless(
            value == wanted,
            &function.id,
            format!("its login of the database is that of {value:?}"),
        );
        let moves = stack.has("DatabaseRoles", "moving")
            && ![None, Some("owner")].contains(&role_of(&function.id));
        let fallback = target(&variables["DATABASE_FALLBACK_SECRET_ARN"]).to_owned();
        problems.unless(
            fallback == if moves { one } else { "" },
            &function.id,
            format!("falls back to {fallback:?}"),
        );
    }
    let resource = stack.get("Database");
    problems.unless(
        resource.is_null() != created,
        "Database",
        "missing, or not selected",
    );
    if !created {
        return;
    }
    let database = &resource["Properties"];
    problems.unless(
        database["StorageEncrypted"] == true,
        "Database",
        "not encrypted at rest",
    );
    let kept = database["BackupRetentionPeriod"]
        .as_u64()
        .unwrap_or_default();
    problems.unless(kept >= 1, "Database", "no backups");
    for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
        problems.unless(
            resource[policy] == "Snapshot",
            "Database",
            "may be lost with the stack",
        );
    }
    // RDS creates missing log groups, and those keep their lines for ever.
    let named = database["DBInstanceIdentifier"] == reference("AWS::StackName");
    for export in list(&database["EnableCloudwatchLogsExports"]) {
        let name = format!("/aws/rds/instance/${{AWS::StackName}}/{}", text(export));
        let prepared = stack.of_type("AWS::Logs::LogGroup").any(|(id, group)| {
            group["LogGroupName"]["Fn::Sub"] == name
                && list(&resource["DependsOn"]).iter().any(|it| it == id)
        });
        let what = format!("creates the group of its {} logs", text(export));
        problems.unless(named && prepared, "Database", what);
    }
    let parameters = stack.get(target(&database["DBParameterGroupName"]));
    let forced = parameters["Properties"]["Parameters"]["rds.force_ssl"] == "1";
    problems.unless(forced, "Database", "connections without TLS");
    for name in [
        "log_parameter_max_length",
        "log_parameter_max_length_on_error",
    ] {
        let hidden = parameters["Properties"]["Parameters"][name] == "0";
        problems.unless(
            hidden,
            "Database",
            format!("{name} puts values of users into its log"),
        );
    }
    let limit = &parameters["Properties"]["Parameters"]["max_connections"];
    let by_class = json!({ "Fn::FindInMap": ["DatabaseClasses", reference("DatabaseInstanceClass"), "Connections"] });
    problems.unless(
        *limit == by_class,
        "Database",
        "another number of connections than its class is planned for",
    );
    let password = text(&database["MasterUserPassword"]["Fn::Sub"]);
    let secret = password == "{{resolve:secretsmanager:${DatabaseSecret}:SecretString:password}}";
    problems.unless(secret, "Database", "a password that is not in its secret");
    let attached = stack
        .of_type("AWS::SecretsManager::SecretTargetAttachment")
        .any(|(_, it)| {
            it["SecretId"] == reference("DatabaseSecret") && it["TargetId"] == reference("Database")
        });
    problems.unless(attached, "DatabaseSecret", "has no address of the database");
}

/// The database role of a function, by its logical id. `tests/it/database_roles.rs` shows that each function works with
/// its role.
fn role_of(id: &str) -> Option<&'static str> {
    match id {
        "GetFlagFunction"
        | "ListFlagsFunction"
        | "EvaluateFlagFunction"
        | "EvaluateFlagsFunction"
        | "HealthFunction"
        | "SyncFlagsFunction"
        | "ReportUsageFunction" => Some("read"),
        "UpdateFlagFunction"
        | "OverridesFunction"
        | "SchedulesFunction"
        | "ManageFlagsFunction"
        | "ManageEnvironmentsFunction"
        | "ManageKeysFunction"
        | "RampsFunction"
        | "GuardFunction"
        | "ReconcileFunction" => Some("write"),
        "CountEvaluationsFunction" => Some("count"),
        "MigrateFunction" => Some("owner"),
        _ => None,
    }
}

/// Secrets belong to a stack: their names begin with its name, and the template does not contain their values.
fn check_secrets(stack: &Stack, problems: &mut Problems) {
    for (id, secret) in stack.of_type("AWS::SecretsManager::Secret") {
        let written = secret["SecretString"].is_string();
        problems.unless(!written, id, "the template contains its value");
        let is_untagged = list(&secret["Tags"]).is_empty();
        problems.unless(!is_untagged, id, "no tags");
        let own = text(&secret["Name"]["Fn::Sub"]).starts_with("${AWS::StackName}/");
        problems.unless(own, id, "a name that does not begin with the stack's");
    }
}

/// Every function with a Redis URL gets `INSTALLATION_ID` and `CACHE_KEY_PREFIX`.
fn check_installation(stack: &Stack, problems: &mut Problems) {
    for function in stack.functions() {
        let variables = &function.properties["Environment"]["Variables"];
        let has_redis = variables["REDIS_SECRET_ARN"] != "";
        let named = variables["INSTALLATION_ID"] == reference("AWS::StackId")
            && variables["CACHE_KEY_PREFIX"] == reference("CacheKeyPrefix");
        problems.unless(named || !has_redis, &function.id, "has no INSTALLATION_ID");
    }
}

/// Every function with a Redis URL can authenticate entries, with a key of at least 64 characters that Secrets Manager
/// generates.
fn check_mac_key(stack: &Stack, problems: &mut Problems) {
    for function in stack.functions() {
        let variables = &function.properties["Environment"]["Variables"];
        let has_redis = !target(&variables["REDIS_SECRET_ARN"]).is_empty();
        let has_key = variables["CACHE_MAC_SECRET_ARN"] == reference("CacheMacSecret");
        problems.unless(
            has_key == has_redis,
            &function.id,
            "a cache without a MAC key, or a MAC key without a cache",
        );
    }
    let secret = &stack.get("CacheMacSecret")["Properties"];
    let length = &secret["GenerateSecretString"]["PasswordLength"];
    let long = length.as_u64() >= Some(64);
    problems.unless(
        long || secret.is_null(),
        "CacheMacSecret",
        "a key that can be guessed",
    );
}

/// Every function with a Redis URL reads replicas of a cluster, unless the operator chooses otherwise.
fn check_replica_reads(stack: &Stack, problems: &mut Problems) {
    for function in stack.functions() {
        let variables = &function.properties["Environment"]["Variables"];
        let has_redis = variables["REDIS_SECRET_ARN"] != "";
        let chosen = variables["REDIS_REPLICA_READS"] == reference("CacheReplicaReads");
        problems.unless(
            chosen || !has_redis,
            &function.id,
            "ignores CacheReplicaReads",
        );
    }
    let default = &stack.parameters["CacheReplicaReads"]["Default"];
    problems.unless(
        default == "true",
        "CacheReplicaReads",
        "replicas serve no reads by default",
    );
}

planted! {
    an_unencrypted_cache:
        [Mistake("SingleCache", "AtRestEncryptionEnabled: true", "AtRestEncryptionEnabled: false")]
        => "SingleCache: not encrypted at rest";
    a_cache_without_tls:
        [Mistake("ClusterCache", "      TransitEncryptionEnabled: true\n", "")]
        => "ClusterCache: not encrypted in transit";
    a_cache_without_a_password:
        [Mistake("ClusterCache", "        - !Sub \"{{resolve:secretsmanager:${CacheTokenSecret}:SecretString}}\"\n", "        - !Ref AWS::NoValue\n")]
        => "ClusterCache: no password";
    a_snapshot_at_noon:
        [Mistake("ClusterCache", "SnapshotWindow: 02:00-04:00", "SnapshotWindow: 12:00-14:00")]
        => "ClusterCache: no snapshot between 02:00 and 04:00";
    no_snapshots:
        [Mistake("SingleCache", "SnapshotRetentionLimit: 1", "SnapshotRetentionLimit: 0")]
        => "SingleCache: snapshots are not kept for one day";
    maintenance_during_the_snapshot:
        [Mistake("SingleCache", "sun:04:30-sun:05:30", "sun:03:30-sun:04:30")]
        => "SingleCache: maintenance during the snapshot";
    a_cluster_with_one_replica:
        [Mistake("ClusterCache", "ReplicasPerNodeGroup: 2", "ReplicasPerNodeGroup: 1")]
        => "ClusterCache: not a primary and two replicas";
    a_cluster_that_does_not_fail_over:
        [Mistake("ClusterCache", "AutomaticFailoverEnabled: true", "AutomaticFailoverEnabled: false")]
        => "ClusterCache: no automatic failover";
    a_cluster_in_one_zone:
        [Mistake("ClusterCache", "MultiAZEnabled: true", "MultiAZEnabled: false")]
        => "ClusterCache: not in several zones";
    a_cluster_without_cluster_mode:
        [Mistake("ClusterCacheParameters", "cluster-enabled: \"yes\", ", "")]
        => "ClusterCache: parameters of a single node";
    a_cache_that_refuses_writes_when_it_is_full:
        [Mistake("SingleCacheParameters", "allkeys-lru", "noeviction")]
        => "SingleCache: refuses writes when it is full";
    a_larger_node_by_default:
        [Mistake("CacheNodeType", "Default: cache.t3.micro", "Default: cache.r7g.large")]
        => "CacheNodeType: another default than cache.t3.micro";
    a_cache_whose_password_cannot_be_changed:
        [Mistake("CacheTokenSecret", "redis-token-${CacheTokenGeneration}", "redis-token")]
        => "CacheTokenSecret: a password that cannot be changed";
    a_url_in_the_clear:
        [Mistake("CacheUrlSecret", "- rediss://:", "- redis://:")]
        => "CacheUrlSecret: both-use-cluster: not rediss://:",
           "CacheUrlSecret: both-use-single: not rediss://:",
           "CacheUrlSecret: single: not rediss://:";
    a_function_that_reads_only_the_primary_of_a_cluster:
        [Mistake("ListFlagsFunction", "      Role:", "      Environment: {Variables: {REDIS_REPLICA_READS: \"false\"}}\n      Role:")]
        => "ListFlagsFunction: ignores CacheReplicaReads";
    a_function_with_another_installation_id:
        [Mistake("ListFlagsFunction", "      Role:", "      Environment: {Variables: {INSTALLATION_ID: other}}\n      Role:")]
        => "ListFlagsFunction: has no INSTALLATION_ID";
    replicas_without_reads_by_default:
        [Mistake("CacheReplicaReads", "Default: \"true\"", "Default: \"false\"")]
        => "CacheReplicaReads: replicas serve no reads by default";
    a_key_that_is_too_short:
        [Mistake("CacheMacSecret", "PasswordLength: 64", "PasswordLength: 16")]
        => "CacheMacSecret: a key that can be guessed";
    a_secret_that_two_stacks_would_share:
        [Mistake("CacheUrlSecret", "Name: !Sub ${AWS::StackName}/redis-url", "Name: pennon/redis-url")]
        => "CacheUrlSecret: a name that does not begin with the stack's";
    a_database_secret_that_two_stacks_would_share:
        [Mistake("DatabaseSecret", "Name: !Sub ${AWS::StackName}/database", "Name: !Sub ${Stage}/database")]
        => "DatabaseSecret: a name that does not begin with the stack's";
    an_unencrypted_database:
        [Mistake("Database", "StorageEncrypted: true", "StorageEncrypted: false")]
        => "Database: not encrypted at rest";
    a_database_that_is_deleted_with_the_stack:
        [Mistake("Database", "    DeletionPolicy: Snapshot\n", "    DeletionPolicy: Delete\n")]
        => "Database: may be lost with the stack";
    a_database_without_backups:
        [Mistake("Database", "!If [IsProduction, 14, 1]", "!If [IsProduction, 14, 0]")]
        => "Database: no backups";
    a_database_that_accepts_connections_without_tls:
        [Mistake("DatabaseParameters", "rds.force_ssl: \"1\"", "rds.force_ssl: \"0\"")]
        => "Database: connections without TLS";
    a_database_that_logs_the_values_of_slow_statements:
        [Mistake("DatabaseParameters", "log_parameter_max_length: \"0\"", "log_parameter_max_length: \"-1\"")]
        => "Database: log_parameter_max_length puts values of users into its log";
    a_database_that_logs_the_values_of_failed_statements:
        [Mistake("DatabaseParameters", "        log_parameter_max_length_on_error: \"0\"\n", "")]
        => "Database: log_parameter_max_length_on_error puts values of users into its log";
    a_database_with_another_limit_than_its_class_is_planned_for:
        [Mistake("DatabaseParameters", "        max_connections: !FindInMap [DatabaseClasses, !Ref DatabaseInstanceClass, Connections]\n", "")]
        => "Database: another number of connections than its class is planned for";
    a_reader_with_the_login_of_writers:
        [Mistake("GetFlagFunction", "      Role: !GetAtt ReadRole.Arn\n", "      Environment: {Variables: {DATABASE_SECRET_ARN: !If [UseDatabaseRoles, !Ref DatabaseWriteSecret, !If [CreateDatabase, !Ref DatabaseSecretAttachment, !Ref ExternalDatabaseSecretArn]]}}\n      Role: !GetAtt ChangeRole.Arn\n")]
        => "GetFlagFunction: its login of the database is that of \"DatabaseWriteSecret\"",
            "GetFlagFunction: may not write to its log group",
           "GetFlagFunction: sends webhooks by null";
    a_database_whose_logs_have_no_group_yet:
        [Mistake("Database", "DependsOn: [DatabaseLogs, DatabaseUpgradeLogs]", "DependsOn: [DatabaseLogs]")]
        => "Database: creates the group of its upgrade logs";
    a_database_whose_log_group_has_another_name:
        [Mistake("Database", "      DBInstanceIdentifier: !Ref AWS::StackName\n", "")]
        => "Database: creates the group of its postgresql logs", "Database: creates the group of its upgrade logs";
    a_database_secret_without_a_host:
        [Mistake("DatabaseSecretAttachment", "TargetId: !Ref Database", "TargetId: !Ref DatabaseSecret")]
        => "DatabaseSecret: has no address of the database";
}

#[test]
fn a_function_that_cannot_authenticate_entries() {
    let mistake = Mistake(
        "ListFlagsFunction",
        "      Role:",
        "      Environment: {Variables: {CACHE_MAC_SECRET_ARN: \"\"}}\n      Role:",
    );
    let found = super::problems(&mistake.plant(&super::read("template.yaml")));
    let wanted = "ListFlagsFunction: a cache without a MAC key, or a MAC key without a cache";
    assert!(found.contains(&wanted.to_owned()), "{found:#?}");
    let other =
        |it: &&String| *it != wanted && !it.starts_with("ListFlagsFunction: names the secrets");
    assert_eq!(found.iter().filter(other).count(), 0, "{found:#?}");
}

#[test]
fn a_template_that_never_sets_replica_reads() {
    let mistake = Mistake(
        "Globals",
        "        REDIS_REPLICA_READS: !Ref CacheReplicaReads\n",
        "",
    );
    let found = super::problems(&mistake.plant(&super::read("template.yaml")));
    for function in ["GetFlagFunction", "UpdateFlagFunction", "ReconcileFunction"] {
        let wanted = format!("{function}: ignores CacheReplicaReads");
        assert!(found.contains(&wanted), "{found:#?}");
    }
    let other: Vec<&String> = found
        .iter()
        .filter(|it| !it.ends_with(": ignores CacheReplicaReads"))
        .collect();
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn primary_endpoint_used_in_cluster_mode() {
    let mistake = Mistake(
        "CacheUrlSecret",
        "ClusterCache.ConfigurationEndPoint.Address",
        "ClusterCache.PrimaryEndPoint.Address",
    );
    let found = super::problems(&mistake.plant(&super::read("template.yaml")));
    let leads = "leads to {\"Fn::GetAtt\":[\"ClusterCache\",\"PrimaryEndPoint.Address\"]}";
    assert_eq!(
        found,
        [
            format!("CacheUrlSecret: both-use-cluster: {leads}"),
            format!("CacheUrlSecret: cluster: {leads}")
        ]
    );
}

#[test]
fn the_wrong_cache_in_the_middle_of_the_move() {
    let mistake = Mistake(
        "Conditions",
        "  UseClusterCache: !Or [!Equals [!Ref CacheMode, both-use-cluster]",
        "  UseClusterCache: !Or [!Equals [!Ref CacheMode, both-use-single]",
    );
    let found = super::problems(&mistake.plant(&super::read("template.yaml")));
    assert!(!found.is_empty());
    assert!(
        found
            .iter()
            .all(|it| it.starts_with("CacheUrlSecret: both-use-")),
        "{found:#?}"
    );
}
