//! The cache accepts connections from the functions only, the database also from its proxy. The functions can connect
//! only to these, to an external database, and through one path out of the VPC.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::functions::{list_or_one, statements};
use super::stack::{Stack, list, only, reference, target, text};
use super::{AFTER, GONE, Mistake, Problems, planted};

const PRIVATE: [&str; 3] = ["PrivateSubnetA", "PrivateSubnetB", "PrivateSubnetC"];

/// The private subnets of a stack: one in each of its zones.
pub(super) fn private(stack: &Stack) -> &'static [&'static str] {
    if stack.has("ZoneC", "none") {
        &PRIVATE[..2]
    } else {
        &PRIVATE
    }
}

/// The target of an egress rule that allows nothing. Without any rule, EC2 adds one that allows everything.
const NOWHERE: &str = "127.0.0.1/32";

pub(super) fn check(stack: &Stack, problems: &mut Problems) {
    check_groups(stack, problems);
    check_subnets(stack, problems);
    check_places(stack, problems);
    check_way_out(stack, problems);
    check_endpoint_policy(stack, problems);
    check_order(stack, problems);
    for (id, properties) in stack.of_type("AWS::EC2::VPC") {
        let watched = stack.of_type("AWS::EC2::FlowLog").any(|(_, log)| {
            log["ResourceId"] == reference(id)
                && log["ResourceType"] == "VPC"
                && log["TrafficType"] == "ALL"
        });
        problems.unless(watched, id, "no flow log of all its traffic");
        let resolves = properties["EnableDnsSupport"] == true;
        problems.unless(resolves, id, "no DNS");
    }
    // The permissions for the delivery of flow logs. AWS's guide adds logs:CreateLogGroup, which no role here may have;
    // the group exists before the flow log.
    for (id, log) in stack.of_type("AWS::EC2::FlowLog") {
        let role = &stack.get(target(&log["DeliverLogsPermissionArn"]))["Properties"];
        let statements = list(&role["Policies"])
            .iter()
            .flat_map(|policy| list(&policy["PolicyDocument"]["Statement"]));
        let granted: BTreeSet<&str> = statements
            .flat_map(|statement| list_or_one(&statement["Action"]))
            .map(text)
            .collect();
        for action in [
            "logs:CreateLogStream",
            "logs:DescribeLogGroups",
            "logs:DescribeLogStreams",
            "logs:PutLogEvents",
        ] {
            let may = granted.contains(action);
            problems.unless(may, id, format!("its role may not {action}"));
        }
    }
}

/// Ingress rules name groups. Egress rules may also name an external database, and the internet on port 443.
fn check_groups(stack: &Stack, problems: &mut Problems) {
    for (id, properties) in stack.of_type("AWS::EC2::SecurityGroup") {
        let closed = properties["SecurityGroupIngress"].is_null();
        problems.unless(closed, id, "ingress rules of its own");
        let egress = list(&properties["SecurityGroupEgress"]);
        let nowhere = egress.len() == 1 && egress[0]["CidrIp"] == NOWHERE;
        problems.unless(nowhere, id, "egress to the world");
    }
    for (id, rule) in stack.of_type("AWS::EC2::SecurityGroupIngress") {
        // The proxy shares the group of the database.
        let by_proxy =
            id == "DatabaseFromDatabaseProxy" && rule["SourceSecurityGroupId"] == rule["GroupId"];
        let named = target(&rule["SourceSecurityGroupId"]) == "FunctionSecurityGroup" || by_proxy;
        problems.unless(named, id, "open to others than the functions");
        check_port(id, rule, problems);
    }
    for (id, rule) in stack.of_type("AWS::EC2::SecurityGroupEgress") {
        let (v4, v6) = (&rule["CidrIp"], &rule["CidrIpv6"]);
        let to_group = !target(&rule["DestinationSecurityGroupId"]).is_empty();
        let to_database = *v4 == reference("ExternalDatabaseCidr");
        let out = (*v6 == "::/0" && stack.has("EgressMode", "ipv6"))
            || (*v4 == "0.0.0.0/0" && stack.has("EgressMode", "nat"));
        let only_tls = rule["FromPort"] == 443;
        let fine = to_group || to_database || (out && only_tls);
        problems.unless(fine, id, "egress to the world");
        check_port(id, rule, problems);
    }
    let speaks = |kind: &str, from: (&str, &str), to: (&str, &str), port: u64| {
        let kind = format!("AWS::EC2::SecurityGroup{kind}");
        stack.of_type(&kind).any(|(_, rule)| {
            target(&rule[from.0]) == from.1
                && target(&rule[to.0]) == to.1
                && rule["FromPort"] == port
        })
    };
    let mut pairs = Vec::new();
    if !stack.has("CacheMode", "none") {
        pairs.push(("CacheSecurityGroup", 6379));
    }
    if stack.has("DatabaseMode", "rds") {
        pairs.push(("DatabaseSecurityGroup", 5432));
    }
    if stack.has("EgressMode", "endpoint") {
        pairs.push(("EndpointSecurityGroup", 443));
    }
    for (group, port) in pairs {
        let functions = "FunctionSecurityGroup";
        let there = speaks(
            "Egress",
            ("GroupId", functions),
            ("DestinationSecurityGroupId", group),
            port,
        );
        problems.unless(there, functions, format!("no way to {group} on {port}"));
        let let_in = speaks(
            "Ingress",
            ("SourceSecurityGroupId", functions),
            ("GroupId", group),
            port,
        );
        problems.unless(
            let_in,
            group,
            format!("does not let the functions in on {port}"),
        );
    }
}

fn check_port(id: &str, rule: &Value, problems: &mut Problems) {
    let one = rule["IpProtocol"] == "tcp" && rule["FromPort"] == rule["ToPort"];
    problems.unless(one && !rule["FromPort"].is_null(), id, "more than one port");
}

/// A private subnet in each of two or three zones, which can be chosen, and a public one if a NAT gateway needs it.
fn check_subnets(stack: &Stack, problems: &mut Problems) {
    let public_tables: BTreeSet<&str> = stack
        .of_type("AWS::EC2::Route")
        .filter(|(_, route)| !route["GatewayId"].is_null())
        .map(|(_, route)| target(&route["RouteTableId"]))
        .collect();
    let mut zones = BTreeSet::new();
    for (id, subnet) in stack.of_type("AWS::EC2::Subnet") {
        let assigns_none = subnet["MapPublicIpOnLaunch"] == false;
        problems.unless(assigns_none, id, "hands out public addresses");
        let tables: Vec<&str> = stack
            .of_type("AWS::EC2::SubnetRouteTableAssociation")
            .filter(|(_, it)| target(&it["SubnetId"]) == id)
            .map(|(_, it)| target(&it["RouteTableId"]))
            .collect();
        let public = tables.iter().any(|table| public_tables.contains(table));
        problems.unless(tables.len() == 1, id, "not exactly one route table");
        if PRIVATE.contains(&id) {
            problems.unless(!public, id, "a public subnet");
            zones.insert(subnet["AvailabilityZone"].to_string());
        } else {
            let for_nat = stack.has("EgressMode", "nat") && id == "NatSubnet";
            problems.unless(for_nat, id, "a subnet without a use");
        }
    }
    let wanted = private(stack).len();
    problems.unless(
        zones.len() == wanted,
        "Vpc",
        format!("not {wanted} private subnets in {wanted} zones"),
    );
    for id in private(stack) {
        let zone = format!("Zone{}", id.trim_start_matches("PrivateSubnet"));
        let subnet = &stack.get(id)["Properties"];
        let chosen = subnet["AvailabilityZone"] == reference(&zone);
        let named = !matches!(stack.value(&zone), "" | "none");
        problems.unless(chosen == named, id, format!("not in {zone}"));
    }
}

/// All resources that hold data, and the functions that read it, are in the private subnets.
fn check_places(stack: &Stack, problems: &mut Problems) {
    let private: Vec<Value> = private(stack).iter().map(|id| reference(id)).collect();
    let private = Value::Array(private);
    let groups = [
        "AWS::ElastiCache::SubnetGroup",
        "AWS::RDS::DBSubnetGroup",
        "AWS::EC2::VPCEndpoint",
    ];
    for kind in groups {
        for (id, properties) in stack.of_type(kind) {
            problems.unless(
                properties["SubnetIds"] == private,
                id,
                "not in the private subnets",
            );
        }
    }
    for (id, proxy) in stack.of_type("AWS::RDS::DBProxy") {
        let inside = proxy["VpcSubnetIds"] == private
            && proxy["VpcSecurityGroupIds"] == json!([reference("DatabaseSecurityGroup")])
            && proxy["RequireTLS"] == true;
        problems.unless(inside, id, "not in the private subnets, or without TLS");
    }
    for function in stack.functions() {
        let place = &function.properties["VpcConfig"];
        let variables = &function.properties["Environment"]["Variables"];
        let needs_data = ["REDIS_SECRET_ARN", "DATABASE_SECRET_ARN"]
            .iter()
            .any(|name| !variables[name].is_null() && variables[name] != "");
        let inside = place["SubnetIds"] == private
            && place["SecurityGroupIds"] == json!([reference("FunctionSecurityGroup")]);
        problems.unless(
            !needs_data || inside,
            &function.id,
            "not where cache and database are",
        );
        let leaves = !needs_data
            || !stack.has("EgressMode", "ipv6")
            || place["Ipv6AllowedForDualStack"] == true;
        problems.unless(leaves, &function.id, "has no IPv6 address");
        let dual = if stack.has("EgressMode", "ipv6") {
            "true"
        } else {
            "false"
        };
        let right = variables["AWS_USE_DUALSTACK_ENDPOINT"] == dual;
        problems.unless(
            !needs_data || right,
            &function.id,
            "AWS_USE_DUALSTACK_ENDPOINT does not fit EgressMode",
        );
    }
}

/// A function gets its new version only after the network resources that it needs exist: a deployment that changes
/// `EgressMode`, `DatabaseMode` or `CacheMode` creates both the resources and the versions. Functions of later waves
/// (see `rollout::wave`) wait for those of the first.
fn check_order(stack: &Stack, problems: &mut Problems) {
    let functions = "FunctionSecurityGroup";
    let rules = stack.all().filter(|(_, resource)| {
        let properties = &resource["Properties"];
        let ends = ["GroupId", "SourceSecurityGroupId"];
        text(&resource["Type"]).starts_with("AWS::EC2::SecurityGroup")
            && ends
                .iter()
                .any(|end| target(&properties[*end]) == functions)
    });
    let ways = rules.chain(stack.all().filter(|(_, resource)| {
        resource["Type"] == "AWS::EC2::VPCEndpoint"
            || (resource["Type"] == "AWS::EC2::Route"
                && target(&resource["Properties"]["RouteTableId"]) == "PrivateRoutes")
    }));
    let ways: Vec<&str> = ways.map(|(id, _)| id).collect();
    let ready = stack.get("NetworkReady")["Metadata"].to_string();
    for way in &ways {
        let waits = ready.contains(&reference(way).to_string());
        problems.unless(waits, "NetworkReady", format!("does not wait for {way}"));
    }
    for function in stack.functions() {
        let waits_for = &stack.get(&function.id)["DependsOn"];
        let later = list_or_one(waits_for).any(|it| text(it).ends_with("Aliaslive"));
        let ready = list_or_one(waits_for).any(|it| it == "NetworkReady");
        let fine = later || ready || function.properties["VpcConfig"].is_null();
        problems.unless(fine, &function.id, "does not wait for its network");
    }
}

/// Exactly one egress path to Secrets Manager.
fn check_way_out(stack: &Stack, problems: &mut Problems) {
    let from_private = |attribute: &str| {
        stack.of_type("AWS::EC2::Route").any(|(_, route)| {
            target(&route["RouteTableId"]) == "PrivateRoutes" && !route[attribute].is_null()
        })
    };
    let endpoint = stack.of_type("AWS::EC2::VPCEndpoint").any(|(_, it)| {
        let service = text(&it["ServiceName"]["Fn::Sub"]);
        service == "com.amazonaws.${AWS::Region}.secretsmanager" && it["PrivateDnsEnabled"] == true
    });
    let nat = from_private("NatGatewayId");
    let ways = [
        ("ipv6", from_private("EgressOnlyInternetGatewayId")),
        ("endpoint", endpoint),
        ("nat", nat),
    ];
    for (mode, exists) in ways {
        let wanted = stack.has("EgressMode", mode);
        problems.unless(
            exists == wanted,
            "PrivateRoutes",
            format!("{mode}: expected {wanted}, exists {exists}"),
        );
    }
    let only_nat = stack
        .of_type("AWS::EC2::InternetGateway")
        .all(|_| stack.has("EgressMode", "nat"));
    problems.unless(only_nat, "InternetGateway", "exists without EgressMode=nat");
    for (id, properties) in stack.of_type("AWS::RDS::DBInstance") {
        let hidden = properties["PubliclyAccessible"] == false;
        problems.unless(hidden, id, "reachable from the internet");
        let grouped = only(&properties["DBSubnetGroupName"]).is_some()
            && properties["VPCSecurityGroups"] == json!([reference("DatabaseSecurityGroup")]);
        problems.unless(grouped, id, "not in its security group");
    }
}

/// The endpoint of Secrets Manager admits only this account, and only the calls of functions. Otherwise an
/// attacker who controls a function could send secrets to another account through it.
fn check_endpoint_policy(stack: &Stack, problems: &mut Problems) {
    const CALLS: [&str; 2] = [
        "secretsmanager:GetSecretValue",
        "secretsmanager:PutSecretValue",
    ];
    let functions = stack.functions().iter();
    let inside = functions.filter(|it| !it.properties["VpcConfig"].is_null());
    let called: BTreeSet<&str> = inside
        .flat_map(|function| statements(stack, function))
        .flat_map(|statement| list_or_one(&statement["Action"]))
        .map(text)
        .filter(|action| action.starts_with("secretsmanager:"))
        .collect();
    let account = json!({"StringEquals": {"aws:PrincipalAccount": reference("AWS::AccountId")}});
    for (id, endpoint) in stack.of_type("AWS::EC2::VPCEndpoint") {
        let statements = list(&endpoint["PolicyDocument"]["Statement"]);
        let own = !statements.is_empty() && statements.iter().all(|it| it["Condition"] == account);
        problems.unless(own, id, "open to other accounts");
        let allowed: BTreeSet<&str> = statements
            .iter()
            .flat_map(|statement| list_or_one(&statement["Action"]))
            .map(text)
            .collect();
        for action in called.difference(&allowed) {
            problems.add(id, format!("does not allow {action}"));
        }
        for action in allowed.iter().filter(|action| !CALLS.contains(action)) {
            problems.add(id, format!("allows {action}"));
        }
    }
}

planted! {
    an_endpoint_that_is_open_to_other_accounts:
        [Mistake("SecretsEndpoint", "            Condition: {StringEquals: {\"aws:PrincipalAccount\": !Ref AWS::AccountId}}\n", "")]
        => "SecretsEndpoint: open to other accounts";
    an_endpoint_without_a_policy:
        [Mistake("SecretsEndpoint", "      PolicyDocument:", "      Policy:")]
        => "SecretsEndpoint: does not allow secretsmanager:GetSecretValue",
           "SecretsEndpoint: does not allow secretsmanager:PutSecretValue", "SecretsEndpoint: open to other accounts";
    an_endpoint_for_every_call:
        [Mistake("SecretsEndpoint", "secretsmanager:PutSecretValue]", "secretsmanager:PutSecretValue, secretsmanager:*]")]
        => "SecretsEndpoint: allows secretsmanager:*";
    an_endpoint_that_rejects_a_call:
        [Mistake("SecretsEndpoint", "[secretsmanager:GetSecretValue, secretsmanager:PutSecretValue]", "secretsmanager:GetSecretValue")]
        => "SecretsEndpoint: does not allow secretsmanager:PutSecretValue";
    a_proxy_that_accepts_connections_without_tls:
        [Mistake("DatabaseProxyServer", "RequireTLS: true", "RequireTLS: false")]
        => "DatabaseProxyServer: not in the private subnets, or without TLS";
    a_world_open_security_group:
        [Mistake("CacheFromFunctions", "SourceSecurityGroupId: !Ref FunctionSecurityGroup", "CidrIp: 0.0.0.0/0"),
         Mistake("CacheFromFunctions", AFTER, CACHE_FROM_FUNCTIONS)]
        => "CacheFromFunctions: open to others than the functions", "NetworkReady: does not wait for CacheFromFunctionsToo";
    a_cache_open_to_the_whole_vpc:
        [Mistake("CacheFromFunctions", "SourceSecurityGroupId: !Ref FunctionSecurityGroup", "CidrIp: !Ref VpcCidr"),
         Mistake("CacheFromFunctions", AFTER, CACHE_FROM_FUNCTIONS)]
        => "CacheFromFunctions: open to others than the functions", "NetworkReady: does not wait for CacheFromFunctionsToo";
    an_inline_ingress_rule:
        [Mistake("DatabaseSecurityGroup", "      VpcId: !Ref Vpc\n",
            "      VpcId: !Ref Vpc\n      SecurityGroupIngress: [{IpProtocol: tcp, FromPort: 5432, ToPort: 5432, CidrIp: 0.0.0.0/0}]\n")]
        => "DatabaseSecurityGroup: ingress rules of its own";
    the_egress_rule_that_ec2_adds:
        [Mistake("CacheSecurityGroup", "      SecurityGroupEgress: [{IpProtocol: \"-1\", CidrIp: 127.0.0.1/32, Description: Nowhere}]\n", "")]
        => "CacheSecurityGroup: egress to the world";
    egress_to_port_80_of_the_world:
        [Mistake("FunctionsToSecretsByNat", "FromPort: 443, ToPort: 443", "FromPort: 80, ToPort: 80")]
        => "FunctionsToSecretsByNat: egress to the world";
    a_range_of_ports:
        [Mistake("DatabaseFromFunctions", "ToPort: 5432", "ToPort: 5999")]
        => "DatabaseFromFunctions: more than one port";
    functions_without_egress_to_the_cache:
        [Mistake("FunctionsToCache", GONE, "")]
        => "FunctionSecurityGroup: no way to CacheSecurityGroup on 6379";
    a_cache_without_an_ingress_rule:
        [Mistake("CacheFromFunctions", "FromPort: 6379, ToPort: 6379", "FromPort: 6380, ToPort: 6380")]
        => "CacheSecurityGroup: does not let the functions in on 6379";
    a_public_subnet:
        [Mistake("PrivateRoutesB", "RouteTableId: !Ref PrivateRoutes", "RouteTableId: !Ref NatRoutes")]
        => "PrivateSubnetB: a public subnet";
    a_subnet_that_assigns_public_addresses:
        [Mistake("PrivateSubnetC", "MapPublicIpOnLaunch: false", "MapPublicIpOnLaunch: true")]
        => "PrivateSubnetC: hands out public addresses";
    two_subnets_in_one_zone:
        [Mistake("PrivateSubnetC", "!Select [2, !GetAZs", "!Select [1, !GetAZs")]
        => "Vpc: not 3 private subnets in 3 zones";
    a_third_zone_in_a_region_with_two:
        [Mistake("PrivateSubnetC", "    Condition: ThreeZones\n", ""), Mistake("PrivateRoutesC", "    Condition: ThreeZones\n", "")]
        => "Vpc: not 2 private subnets in 2 zones";
    a_function_that_needs_a_third_zone:
        [Mistake("GetFlagFunction", "!If [ThreeZones, !Ref PrivateSubnetC, !Ref AWS::NoValue]", "!Ref PrivateSubnetC")]
        => "GetFlagFunction: not where cache and database are";
    a_database_that_needs_a_third_zone:
        [Mistake("DatabaseSubnets", "!If [ThreeZones, !Ref PrivateSubnetC, !Ref AWS::NoValue]", "!Ref PrivateSubnetC")]
        => "DatabaseSubnets: not in the private subnets";
    an_endpoint_that_needs_a_third_zone:
        [Mistake("SecretsEndpoint", "!If [ThreeZones, !Ref PrivateSubnetC, !Ref AWS::NoValue]", "!Ref PrivateSubnetC")]
        => "SecretsEndpoint: not in the private subnets";
    a_zone_that_cannot_be_chosen:
        [Mistake("PrivateSubnetB", "!If [ChooseZoneB, !Ref ZoneB, !Select [1, !GetAZs \"\"]]", "!Select [1, !GetAZs \"\"]")]
        => "PrivateSubnetB: not in ZoneB";
    a_nat_subnet_without_a_nat:
        [Mistake("NatSubnet", "    Condition: UseNat\n", ""), Mistake("NatSubnetRoutes", "    Condition: UseNat\n", "")]
        => "NatSubnet: a subnet without a use";
    a_cache_in_the_public_subnet:
        [Mistake("CacheSubnets", "!Ref PrivateSubnetB", "!Ref NatSubnet")]
        => "CacheSubnets: not in the private subnets";
    a_function_in_the_wrong_security_group:
        [Mistake("GetFlagFunction", "SecurityGroupIds: [!Ref FunctionSecurityGroup]", "SecurityGroupIds: [!Ref CacheSecurityGroup]")]
        => "GetFlagFunction: not where cache and database are";
    a_function_without_an_ipv6_address:
        [Mistake("HealthFunction", "        Ipv6AllowedForDualStack: true\n", "")]
        => "HealthFunction: has no IPv6 address";
    two_ways_out:
        [Mistake("NatRoute", "    Condition: UseNat\n", "")]
        => "NetworkReady: does not wait for NatRoute", "PrivateRoutes: nat: expected false, exists true";
    no_way_out:
        [Mistake("Ipv6Route", GONE, "")]
        => "PrivateRoutes: ipv6: expected true, exists false";
    an_endpoint_without_private_dns:
        [Mistake("SecretsEndpoint", "PrivateDnsEnabled: true", "PrivateDnsEnabled: false")]
        => "PrivateRoutes: endpoint: expected true, exists false";
    a_vpc_without_flow_logs:
        [Mistake("FlowLog", "TrafficType: ALL", "TrafficType: ACCEPT")]
        => "Vpc: no flow log of all its traffic";
    a_flow_log_that_cannot_find_its_group:
        [Mistake("FlowLogRole", "logs:DescribeLogGroups", "logs:DescribeLogStreams")]
        => "FlowLog: its role may not logs:DescribeLogGroups";
    a_function_that_is_created_before_its_network:
        [Mistake("GetFlagFunction", "    DependsOn: NetworkReady\n", "")]
        => "GetFlagFunction: does not wait for its network";
    functions_that_are_updated_before_their_egress_route:
        [Mistake("NetworkReady", "!Ref NatRoute, ", "")]
        => "NetworkReady: does not wait for NatRoute";
    functions_that_are_updated_before_the_rule_for_their_database:
        [Mistake("NetworkReady", "[!Ref FunctionsToExternalDatabase]", "[]")]
        => "NetworkReady: does not wait for FunctionsToExternalDatabase";
    a_database_on_the_internet:
        [Mistake("Database", "PubliclyAccessible: false", "PubliclyAccessible: true")]
        => "Database: reachable from the internet";
}

/// The correct rule, beside a wrong one.
const CACHE_FROM_FUNCTIONS: &str = "  CacheFromFunctionsToo:
    Type: AWS::EC2::SecurityGroupIngress
    Condition: HasCache
    Properties:
      {GroupId: !Ref CacheSecurityGroup, SourceSecurityGroupId: !Ref FunctionSecurityGroup,
       IpProtocol: tcp, FromPort: 6379, ToPort: 6379}
";
