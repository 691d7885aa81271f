//! Sign-in: a user pool that updates do not replace, a second factor, short tokens, and no flow that sends a password.

use serde_json::{Value, json};

use super::stack::{Stack, list, reference, target, text};
use super::{Mistake, Problems, parse, planted, read};

/// The callback URLs of `scripts/login`; `pennon-local login --help` lists the same.
pub(crate) const CALLBACKS: [&str; 3] = [
    "http://127.0.0.1:41817/callback",
    "http://127.0.0.1:41818/callback",
    "http://127.0.0.1:41819/callback",
];

pub(super) fn check(stack: &Stack, problems: &mut Problems) {
    let wanted = stack.has("JwtIssuer", "");
    let has_console = wanted && !stack.has("ConsoleUrl", "");
    for (id, wanted) in [
        ("UserPool", wanted),
        ("UserPoolClient", wanted),
        ("ConsoleClient", has_console),
        ("UserPoolDomain", wanted),
        ("UserPoolBranding", wanted),
        ("ConsoleBranding", has_console),
        ("UserPoolAdmins", wanted),
    ] {
        let exists = !stack.get(id).is_null();
        problems.unless(
            exists == wanted,
            id,
            format!("expected {wanted}, exists {exists}"),
        );
    }
    if wanted {
        check_pool(stack.get("UserPool"), problems);
        check_client(stack, "UserPoolClient", problems);
        check_pages(stack, problems);
        check_branding(stack, "UserPoolBranding", "UserPoolClient", problems);
        let client = &stack.get("UserPoolClient")["Properties"];
        problems.unless(
            client["CallbackURLs"] == json!(CALLBACKS),
            "UserPoolClient",
            "other callback URLs than scripts/login",
        );
    }
    if has_console {
        check_client(stack, "ConsoleClient", problems);
        check_branding(stack, "ConsoleBranding", "ConsoleClient", problems);
        let client = &stack.get("ConsoleClient")["Properties"];
        let below = |path: &str| json!([{ "Fn::Sub": format!("${{ConsoleUrl}}/console/{path}") }]);
        let own = client["CallbackURLs"] == below("callback") && client["LogoutURLs"] == below("");
        problems.unless(
            own,
            "ConsoleClient",
            "leads to other pages than the console's",
        );
    }
    let console = stack.functions().iter().find(|it| it.handler == "console");
    let client = console.map(|it| &it.properties["Environment"]["Variables"]["CONSOLE_CLIENT_ID"]);
    let expected = if has_console {
        "ConsoleClient"
    } else {
        "ConsoleClientId"
    };
    problems.unless(
        client == Some(&reference(expected)),
        "ConsoleFunction",
        format!("does not sign in as {expected}"),
    );
}

fn check_pool(resource: &Value, problems: &mut Problems) {
    let pool = &resource["Properties"];
    // CloudFormation replaces a pool, and deletes its users, if one of these changes.
    let stays = pool["UsernameAttributes"] == json!(["email"])
        && ["AliasAttributes", "UsernameConfiguration", "Schema"]
            .iter()
            .all(|name| pool[*name].is_null());
    problems.unless(
        stays,
        "UserPool",
        "an update replaces it and deletes its users",
    );
    problems.unless(
        resource["UpdateReplacePolicy"] == "Retain",
        "UserPool",
        "a replaced pool is deleted",
    );
    // The profiles leave AdminMfa at its default.
    problems.unless(
        pool["MfaConfiguration"] == "ON",
        "UserPool",
        "no second factor is required",
    );
    problems.unless(
        pool["EnabledMfas"] == json!(["SOFTWARE_TOKEN_MFA"]),
        "UserPool",
        "no second factor, or one by text message",
    );
    problems.unless(
        pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] == true,
        "UserPool",
        "users may sign up",
    );
    problems.unless(
        pool["UserPoolTier"] == "ESSENTIALS",
        "UserPool",
        "no tier with rotation and managed login",
    );
}

fn check_client(stack: &Stack, about: &str, problems: &mut Problems) {
    let client = &stack.get(about)["Properties"];
    let flows = list(&client["ExplicitAuthFlows"]);
    // By default Cognito also allows ALLOW_REFRESH_TOKEN_AUTH, which excludes rotation.
    problems.unless(!flows.is_empty(), about, "flows that Cognito chooses");
    for flow in flows.iter().map(text) {
        // ALLOW_USER_AUTH accepts a password too, among other proofs.
        let password = flow.contains("PASSWORD") || flow == "ALLOW_USER_AUTH";
        problems.unless(
            !password,
            about,
            format!("{flow}: a program sends the password"),
        );
        let unrotated = flow == "ALLOW_REFRESH_TOKEN_AUTH";
        problems.unless(!unrotated, about, format!("{flow}: excludes rotation"));
    }
    let public = client["GenerateSecret"] == false
        && client["AllowedOAuthFlowsUserPoolClient"] == true
        && client["AllowedOAuthFlows"] == json!(["code"])
        && client["AllowedOAuthScopes"] == json!(["openid"])
        && client["SupportedIdentityProviders"] == json!(["COGNITO"]);
    problems.unless(public, about, "not a public client for the code flow");
    let units = &client["TokenValidityUnits"];
    for (name, unit, most) in [
        ("AccessTokenValidity", "AccessToken", 15),
        ("IdTokenValidity", "IdToken", 15),
        ("RefreshTokenValidity", "RefreshToken", 12 * 60),
    ] {
        let scale = match text(&units[unit]) {
            "minutes" => 1,
            "hours" => 60,
            _ => 24 * 60,
        };
        let minutes = client[name].as_i64().map(|number| number * scale);
        let short = minutes.is_some_and(|minutes| minutes <= most);
        problems.unless(short, about, format!("{name}: more than {most} minutes"));
    }
    let rotation = &client["RefreshTokenRotation"];
    let rotates = rotation["Feature"] == "ENABLED"
        && rotation["RetryGracePeriodSeconds"]
            .as_i64()
            .is_some_and(|it| it <= 10)
        && client["EnableTokenRevocation"] == true;
    problems.unless(rotates, about, "refresh tokens do not rotate");
}

fn check_pages(stack: &Stack, problems: &mut Problems) {
    let domain = &stack.get("UserPoolDomain")["Properties"];
    let named =
        domain["Domain"]["Fn::Sub"][0] == "pennon-${Id}" && domain["ManagedLoginVersion"] == 2;
    let of_pool = domain["UserPoolId"] == reference("UserPool");
    problems.unless(
        named && of_pool,
        "UserPoolDomain",
        "the pool has no sign-in pages",
    );
}

fn check_branding(stack: &Stack, id: &str, client: &str, problems: &mut Problems) {
    let branding = &stack.get(id)["Properties"];
    let has_pages = target(&branding["ClientId"]) == client
        && target(&branding["UserPoolId"]) == "UserPool"
        && branding["UseCognitoProvidedValues"] == true;
    problems.unless(has_pages, id, "the client has no sign-in pages");
}

#[test]
fn a_second_factor_is_required_unless_a_parameter_says_otherwise() {
    let template = parse(&read("template.yaml"));
    let parameter = &template["Parameters"]["AdminMfa"];
    assert_eq!(parameter["Default"], "required");
    assert_eq!(parameter["AllowedValues"], json!(["required", "optional"]));
    let configured = &template["Resources"]["UserPool"]["Properties"]["MfaConfiguration"];
    assert_eq!(
        *configured,
        json!({ "Fn::If": ["RequireMfa", "ON", "OPTIONAL"] })
    );
    // Among the stages of samconfig.toml, only dev relaxes it.
    let stages = read("samconfig.toml");
    assert_eq!(stages.matches("AdminMfa").count(), 1);
    let dev = stages
        .split("[dev.deploy.parameters.parameter_overrides]")
        .nth(1);
    let dev = dev.and_then(|rest| rest.split("\n[").next()).expect("dev");
    assert!(dev.contains("AdminMfa = \"optional\""), "{dev}");
}

planted! {
    a_pool_that_is_replaced:
        [Mistake("UserPool", "UsernameAttributes: [email]", "UsernameAttributes: [email, phone_number]")]
        => "UserPool: an update replaces it and deletes its users";
    a_pool_that_is_deleted_when_it_is_replaced:
        [Mistake("UserPool", "UpdateReplacePolicy: Retain", "UpdateReplacePolicy: Delete")]
        => "UserPool: a replaced pool is deleted";
    a_password_alone:
        [Mistake("UserPool", "!If [RequireMfa, \"ON\", OPTIONAL]", "OPTIONAL")]
        => "UserPool: no second factor is required";
    a_pool_with_self_registration:
        [Mistake("UserPool", "AllowAdminCreateUserOnly: true", "AllowAdminCreateUserOnly: false")]
        => "UserPool: users may sign up";
    a_tier_without_rotation:
        [Mistake("UserPool", "UserPoolTier: ESSENTIALS", "UserPoolTier: LITE")]
        => "UserPool: no tier with rotation and managed login";
    a_program_that_sends_passwords:
        [Mistake("UserPoolClient", "[ALLOW_USER_SRP_AUTH]", "[ALLOW_USER_SRP_AUTH, ALLOW_ADMIN_USER_PASSWORD_AUTH]")]
        => "UserPoolClient: ALLOW_ADMIN_USER_PASSWORD_AUTH: a program sends the password";
    a_flow_that_accepts_passwords_among_others:
        [Mistake("UserPoolClient", "[ALLOW_USER_SRP_AUTH]", "[ALLOW_USER_AUTH]")]
        => "UserPoolClient: ALLOW_USER_AUTH: a program sends the password";
    flows_that_exclude_rotation:
        [Mistake("UserPoolClient", "[ALLOW_USER_SRP_AUTH]", "[ALLOW_REFRESH_TOKEN_AUTH]")]
        => "UserPoolClient: ALLOW_REFRESH_TOKEN_AUTH: excludes rotation";
    access_tokens_for_an_hour:
        [Mistake("UserPoolClient", "AccessTokenValidity: 15", "AccessTokenValidity: 60")]
        => "UserPoolClient: AccessTokenValidity: more than 15 minutes";
    id_tokens_for_hours:
        [Mistake("UserPoolClient", "IdToken: minutes", "IdToken: hours")]
        => "UserPoolClient: IdTokenValidity: more than 15 minutes";
    refresh_tokens_for_days:
        [Mistake("UserPoolClient", "RefreshToken: hours", "RefreshToken: days")]
        => "UserPoolClient: RefreshTokenValidity: more than 720 minutes";
    refresh_tokens_that_stay:
        [Mistake("UserPoolClient", "{Feature: ENABLED,", "{Feature: DISABLED,")]
        => "UserPoolClient: refresh tokens do not rotate";
    a_client_with_a_secret:
        [Mistake("UserPoolClient", "GenerateSecret: false", "GenerateSecret: true")]
        => "UserPoolClient: not a public client for the code flow";
    tokens_in_the_address_of_a_page:
        [Mistake("UserPoolClient", "AllowedOAuthFlows: [code]", "AllowedOAuthFlows: [implicit]")]
        => "UserPoolClient: not a public client for the code flow";
    a_callback_on_another_port:
        [Mistake("UserPoolClient", ":41819/callback", ":41820/callback")]
        => "UserPoolClient: other callback URLs than scripts/login";
    a_console_with_a_secret:
        [Mistake("ConsoleClient", "GenerateSecret: false", "GenerateSecret: true")]
        => "ConsoleClient: not a public client for the code flow";
    a_console_whose_refresh_tokens_stay:
        [Mistake("ConsoleClient", "{Feature: ENABLED,", "{Feature: DISABLED,")]
        => "ConsoleClient: refresh tokens do not rotate";
    a_sign_in_that_ends_elsewhere:
        [Mistake("ConsoleClient", "${ConsoleUrl}/console/callback", "${ConsoleUrl}/callback")]
        => "ConsoleClient: leads to other pages than the console's";
    a_sign_out_that_ends_elsewhere:
        [Mistake("ConsoleClient", "LogoutURLs: [!Sub \"${ConsoleUrl}/console/\"]", "LogoutURLs: [!Sub \"${ConsoleUrl}/\"]")]
        => "ConsoleClient: leads to other pages than the console's";
    a_console_without_sign_in_pages:
        [Mistake("ConsoleBranding", "ClientId: !Ref ConsoleClient", "ClientId: !Ref UserPoolClient")]
        => "ConsoleBranding: the client has no sign-in pages";
    a_console_that_signs_in_as_the_client_of_the_command_line:
        [Mistake("ConsoleFunction", "[CreateConsoleClient, !Ref ConsoleClient,", "[CreateConsoleClient, !Ref UserPoolClient,")]
        => "ConsoleFunction: does not sign in as ConsoleClient";
    pages_that_do_not_open:
        [Mistake("UserPoolBranding", "UseCognitoProvidedValues: true", "UseCognitoProvidedValues: false")]
        => "UserPoolBranding: the client has no sign-in pages";
}
