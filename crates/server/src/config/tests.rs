//! Configuration: layers, refusals, redaction, and that the documentation shows every setting.

use std::fmt::Write as _;
use std::io::Write as _;

use toml::Value;

use super::*;

const KEY: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn account() -> Value {
    let text = "[[accounts]]\nname = \"sandbox\"\nkind = \"sandbox\"\n\
                base_url = \"http://127.0.0.1:1\"\napi_key = \"sandbox-secret\"\n";
    text.parse::<toml::Table>()
        .unwrap()
        .remove("accounts")
        .unwrap()
}

/// The least that `serve` needs, as a command would set it: file and environment win over it.
fn minimal() -> Sources {
    Sources {
        command: vec![
            ("server.plaintext", Value::Boolean(true)),
            (
                "database.url",
                Value::String("postgres://app:db-secret@localhost/q".to_owned()),
            ),
            (
                "secrets.keys",
                Value::Array(vec![Value::String(KEY.to_owned())]),
            ),
            ("providers.accounts", account()),
            (
                "audit.log_key_files",
                Value::Array(vec![Value::String("log.key".to_owned())]),
            ),
            (
                "audit.receipt_key_file",
                Value::String("receipt.key".to_owned()),
            ),
            ("audit.state_directory", Value::String("signer".to_owned())),
        ],
        ..Sources::default()
    }
}

fn with_file(text: &str) -> (Sources, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    (
        Sources {
            file: Some(file.path().to_owned()),
            ..minimal()
        },
        file,
    )
}

fn with_variables(variables: &[(&str, &str)]) -> Sources {
    let environment = variables
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    Sources {
        environment,
        ..minimal()
    }
}

fn error(sources: &Sources) -> String {
    Config::load(sources).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let (mut sources, _file) =
        with_file("[server.limits]\nmax_connections = 7\nmax_in_flight = 8\n");
    sources.environment = vec![(
        "QUITTANCE_SERVER__LIMITS__MAX_IN_FLIGHT".to_owned(),
        "9".to_owned(),
    )];
    let limits = Config::load(&sources).unwrap().server.limits;
    assert_eq!(limits.max_connections, 7);
    assert_eq!(limits.max_in_flight, 9);
    assert_eq!(limits.max_request_bytes, 262_144);
}

#[test]
fn whatever_a_call_waits_for_ends_before_it_is_cut_off() {
    let limit = "QUITTANCE_SERVER__LIMITS__REQUEST_TIMEOUT_MS";
    let wait = "QUITTANCE_PAYMENTS__DEFAULT_WAIT_MS";
    let fits = |limit_ms, wait_ms| with_variables(&[(limit, limit_ms), (wait, wait_ms)]);
    assert!(Config::load(&fits("20000", "19899")).is_ok());
    let message = error(&fits("20000", "19900"));
    assert!(message.contains("payments.default_wait_ms"), "{message}");
    assert!(
        message.contains("server.limits.request_timeout_ms (20000 ms)"),
        "{message}"
    );
    // The account's own default is 10 s.
    assert!(Config::load(&fits("10101", "1000")).is_ok());
    let message = error(&fits("10100", "1000"));
    assert!(
        message.contains("providers.accounts") && message.contains("entry 1: total_timeout_ms"),
        "{message}"
    );
}

#[test]
fn the_limits_of_commands_have_their_documented_defaults() {
    let config = Config::load(&minimal()).unwrap();
    assert_eq!(config.payments.max_commands_in_flight, 10_000);
    assert_eq!(config.payments.lease_margin.as_secs(), 15);
    assert_eq!(config.auth.stream_recheck.as_secs(), 10);
}

#[test]
fn retries_and_recovery_have_the_defaults_of_the_domain_and_the_documentation() {
    let config = Config::load(&minimal()).unwrap();
    assert_eq!(
        config.payments.retries,
        quittance_domain::retry::RetryPolicy::default()
    );
    let expected = RecoveryConfig {
        enabled: true,
        poll_interval: std::time::Duration::from_secs(1),
        concurrency: 64,
        concurrency_per_account: 16,
        claim: std::time::Duration::from_secs(60),
    };
    assert_eq!(config.recovery, expected);
}

#[test]
fn schedules_of_retries_are_read_one_by_one() {
    let given = with_variables(&[
        ("QUITTANCE_PAYMENTS__RETRIES__UNREACHABLE__FIRST_MS", "20"),
        ("QUITTANCE_PAYMENTS__RETRIES__NOT_LET_IN__MAX_STEPS", "3"),
        (
            "QUITTANCE_PAYMENTS__RETRIES__OUTCOME_UNKNOWN__GIVE_UP_AFTER_SECONDS",
            "5",
        ),
        ("QUITTANCE_PAYMENTS__RETRIES__UNDECIDED__MAX_MS", "6000"),
        (
            "QUITTANCE_PAYMENTS__RETRIES__AWAITING_CUSTOMER__MAX_STEPS",
            "8",
        ),
        ("QUITTANCE_PAYMENTS__RETRIES__MAX_SENDS__VOID", "7"),
    ]);
    let retries = Config::load(&given).unwrap().payments.retries;
    assert_eq!(retries.reach.first.as_millis(), 20);
    assert_eq!(retries.leave.steps, 3);
    assert_eq!(retries.outcome.give_up_after.as_secs(), 5);
    assert_eq!(retries.decision.max.as_secs(), 6);
    assert_eq!(retries.customer.steps, 8);
    assert_eq!(retries.max_sends.void, 7);

    let name = "QUITTANCE_PAYMENTS__RETRIES__UNDECIDED__MAX_MS";
    let message = error(&with_variables(&[(name, "4999")]));
    assert!(message.contains("must not be below first_ms"), "{message}");
}

#[test]
fn a_claim_outlasts_what_it_is_for() {
    let claim = "QUITTANCE_RECOVERY__CLAIM_SECONDS";
    assert!(Config::load(&with_variables(&[(claim, "41")])).is_ok());
    let message = error(&with_variables(&[(claim, "40")]));
    assert!(
        message.contains(
            "entry 1: total_timeout_ms must be below a quarter of recovery.claim_seconds"
        ),
        "{message}"
    );
    let accounts = "QUITTANCE_RECOVERY__CONCURRENCY_PER_ACCOUNT";
    let message = error(&with_variables(&[(accounts, "65")]));
    assert!(message.contains("recovery.concurrency (64)"), "{message}");
}

#[test]
fn unknown_settings_are_refused_with_the_nearest_known_one() {
    let (sources, _file) = with_file("[server]\ngrcp_listen = \"127.0.0.1:1\"\n");
    let message = error(&sources);
    assert!(message.contains("server.grcp_listen"), "{message}");
    assert!(
        message.contains("did you mean server.grpc_listen?"),
        "{message}"
    );

    let message = error(&with_variables(&[("QUITTANCE_SERVER__PLAINTXT", "true")]));
    assert!(message.contains("QUITTANCE_SERVER__PLAINTXT"), "{message}");
    assert!(
        message.contains("QUITTANCE_SERVER__PLAINTEXT?"),
        "{message}"
    );

    let (sources, _file) = with_file("server = 1\n");
    assert!(error(&sources).contains("unknown setting server "));

    // Nothing is like it: a suggestion would only mislead.
    let (sources, _file) = with_file("[payments]\ncolour = \"red\"\n");
    let message = error(&sources);
    assert!(
        message.contains("unknown setting payments.colour"),
        "{message}"
    );
    assert!(!message.contains("did you mean"), "{message}");
}

#[test]
fn variables_of_commands_and_of_others_are_left_alone() {
    let others = [
        ("QUITTANCE_CONFIG", "x"),
        ("QUITTANCE_DATA_DIR", "y"),
        ("HOME", "/"),
        ("QUIT", "z"),
    ];
    assert!(Config::load(&with_variables(&others)).is_ok());
}

#[test]
fn values_out_of_range_or_of_another_type_name_their_setting_and_origin() {
    for (variable, value, expected) in [
        ("QUITTANCE_DATABASE__POOL_SIZE", "0", "from 1 to 1000"),
        ("QUITTANCE_DATABASE__POOL_SIZE", "-1", "from 1 to 1000"),
        (
            "QUITTANCE_DATABASE__POOL_SIZE",
            "many",
            "must be a whole number",
        ),
        (
            "QUITTANCE_SERVER__PLAINTEXT",
            "yes",
            "must be true or false",
        ),
        (
            "QUITTANCE_SERVER__REFLECTION",
            "maybe",
            r#"one of "open", "authenticated", "off""#,
        ),
        (
            "QUITTANCE_SERVER__GRPC_LISTEN",
            "localhost",
            "an IP address and a port",
        ),
        ("QUITTANCE_SECRETS__KEYS", "k1:short", "base64 of 32 bytes"),
        ("QUITTANCE_SECRETS__KEYS", "[", "is not a TOML list"),
        (
            "QUITTANCE_DATABASE__APPLICATION_ROLE",
            "x; drop",
            "a-z 0-9 _",
        ),
    ] {
        let message = error(&with_variables(&[(variable, value)]));
        assert!(message.contains(expected), "{variable}: {message}");
        assert!(message.contains(&format!("set by {variable}")), "{message}");
    }
}

#[test]
fn plaintext_is_for_loopback_only() {
    let open = [("QUITTANCE_SERVER__GRPC_LISTEN", "0.0.0.0:7443")];
    assert!(error(&with_variables(&open)).starts_with("server.plaintext"));
    let v6 = [("QUITTANCE_SERVER__GRPC_LISTEN", "[::1]:7443")];
    assert!(Config::load(&with_variables(&v6)).is_ok());
    let off = [("QUITTANCE_SERVER__PLAINTEXT", "false")];
    assert!(error(&with_variables(&off)).starts_with("server.tls.certificate_file"));
}

#[test]
fn what_serve_needs_is_asked_for_by_name() {
    for missing in ["database.url", "secrets.keys", "providers.accounts"] {
        let mut sources = minimal();
        sources.command.retain(|(key, _)| *key != missing);
        assert!(error(&sources).starts_with(missing));
    }
}

#[test]
fn database_url_wins_over_everything_in_either_order() {
    let ours = ("QUITTANCE_DATABASE__URL", "postgres://other/x");
    let standard = ("DATABASE_URL", "postgres://standard/x");
    for variables in [[ours, standard], [standard, ours]] {
        let config = Config::load(&with_variables(&variables)).unwrap();
        assert_eq!(config.database.url.expose(), standard.1);
    }
    let config = Config::load(&with_variables(&[("DATABASE_URL", "")])).unwrap();
    assert!(config.database.url.expose().contains("db-secret"));
}

#[test]
fn secrets_come_from_files_or_values_but_not_from_both() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{KEY}\nold:{}", &KEY[3..]).unwrap();
    let path = file.path().to_str().unwrap();
    let both = with_variables(&[("QUITTANCE_SECRETS__KEYS_FILE", path)]);
    assert!(error(&both).contains("secrets.keys is set too"));
    let mut only = both;
    only.command.retain(|(key, _)| *key != "secrets.keys");
    let secrets = Config::load(&only).unwrap().secrets;
    assert_eq!(secrets.active.id, "k1");
    assert_eq!(secrets.older.len(), 1);

    let missing = with_variables(&[("QUITTANCE_DATABASE__URL_FILE", "/no/such/file")]);
    assert!(error(&missing).contains("database.url is set too"));
    let twice = with_variables(&[("QUITTANCE_SECRETS__KEYS", &format!("{KEY},{KEY}"))]);
    assert!(error(&twice).contains("key k1 appears twice"));
}

#[test]
fn nothing_secret_is_shown() {
    let config = Config::load(&minimal()).unwrap();
    let shown = format!("{config:?}");
    for secret in ["db-secret", "sandbox-secret", &KEY[3..]] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let (sources, _file) = with_file("[database]\nurl = \"postgres://u:p4ss@h/d\n");
    let message = error(&sources);
    assert!(!message.contains("p4ss"), "{message}");
    assert!(message.contains("line 2, column"), "{message}");
}

#[test]
fn a_wrong_account_is_named_by_its_place_and_not_by_its_secret() {
    let (mut sources, _file) = with_file(
        "[[providers.accounts]]\nname = \"a\"\nkind = \"sandbox\"\nbase_url = \"https://a\"\n\
         api_key = \"s3cret\"\napi_kee = \"s3cret\"\n",
    );
    let message = error(&sources);
    assert!(
        message.starts_with("providers.accounts (set in "),
        "{message}"
    );
    assert!(
        message.ends_with(
            "entry 1: unknown field `api_kee`; docs/configuration.md says which there are"
        ),
        "{message}"
    );
    assert!(!message.contains("s3cret"), "{message}");

    let mut key = tempfile::NamedTempFile::new().unwrap();
    writeln!(key, "s3cret").unwrap();
    let accounts = format!(
        "[{{ name = \"a\", kind = \"sandbox\", base_url = \"https://a\", api_key_file = {:?} }}]",
        key.path()
    );
    sources.file = None;
    sources.environment = vec![("QUITTANCE_PROVIDERS__ACCOUNTS".to_owned(), accounts)];
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.providers.accounts[0].api_key.expose(), "s3cret");
}

/// One setting of the default file.
struct Documented {
    key: String,
    default: String,
    comment: Vec<String>,
    /// What is said of its section, at the first of its settings.
    about_section: Vec<String>,
}

fn documented() -> (Vec<String>, Vec<Documented>) {
    let (mut section, mut comment, mut head) = (String::new(), Vec::new(), None);
    let mut about_section = Vec::new();
    let mut settings = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.strip_prefix(' ').unwrap_or(text).to_owned());
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            about_section = std::mem::take(&mut comment);
        } else if let Some((name, default)) = line.split_once(" = ") {
            let key = format!("{section}.{name}");
            let comment = std::mem::take(&mut comment);
            settings.push(Documented {
                key,
                default: default.to_owned(),
                comment,
                about_section: std::mem::take(&mut about_section),
            });
        } else if !comment.is_empty() && head.is_none() {
            head = Some(std::mem::take(&mut comment));
        }
    }
    (head.unwrap_or_default(), settings)
}

fn paragraph(text: &mut String, lines: &[String]) {
    let mut in_code = false;
    for line in lines {
        let indented = line.starts_with("  ");
        if indented != in_code {
            text.push_str(if indented { "\n```text\n" } else { "```\n\n" });
            in_code = indented;
        }
        writeln!(
            text,
            "{}",
            if indented {
                line.get(2..).unwrap_or_default()
            } else {
                line
            }
        )
        .unwrap();
    }
    if in_code {
        text.push_str("```\n");
    }
}

fn rendered() -> String {
    let (_, settings) = documented();
    let mut text = String::from(
        "# Configuration\n\nGenerated from `config.default.toml`, and compared with it by a test; to write it anew:\n\
         `UPDATE_DOCS=1 cargo test -p quittance-server config`.\n\n\
         Settings come from, each winning over the one before: the defaults below, the file that `--config` or\n\
         `QUITTANCE_CONFIG` names (TOML), the environment. The variable of a setting is its path in capitals behind\n\
         `QUITTANCE_`, with two underscores between its parts. Lists are given as TOML or, of plain texts, separated by\n\
         commas. `DATABASE_URL` wins over `database.url`. An empty text means \"not set\". Unknown settings are refused\n\
         in file and environment, and every value is checked at start.\n\n\
         Options of commands, no settings: `QUITTANCE_CONFIG` (`--config`), `QUITTANCE_DATA_DIR` (`--data-dir` of\n\
         `quittance dev`), `QUITTANCE_ADDRESS`, `QUITTANCE_CA_FILE`, `QUITTANCE_API_KEY_FILE` and `QUITTANCE_API_KEY` (of\n\
         every command that is a client of a running server). Telemetry also honours the `OTEL_*` variables of the\n\
         OpenTelemetry specification.\n",
    );
    let mut last_section = String::new();
    for setting in &settings {
        let section = setting.key.rsplit_once('.').unwrap().0.to_owned();
        if section != last_section {
            writeln!(text, "\n## `[{section}]`").unwrap();
            last_section = section;
            if !setting.about_section.is_empty() {
                text.push('\n');
                paragraph(&mut text, &setting.about_section);
            }
        }
        writeln!(text, "\n### `{}`\n", setting.key).unwrap();
        writeln!(
            text,
            "Default `{}` · `{}`\n",
            setting.default,
            variable_name(&setting.key)
        )
        .unwrap();
        paragraph(&mut text, &setting.comment);
    }
    text
}

#[test]
fn the_documentation_shows_every_setting_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, rendered()).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(text, rendered());
    let shown: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .map(str::to_owned)
        .collect();
    let mut sorted = shown.clone();
    sorted.sort();
    let settings = Settings::gather(&Sources::default()).unwrap();
    assert_eq!(
        sorted,
        settings.keys().map(str::to_owned).collect::<Vec<_>>()
    );
}

#[test]
fn every_setting_is_explained_and_its_stated_range_is_that_of_the_code() {
    for setting in documented().1 {
        assert!(
            !setting.comment.is_empty(),
            "{} has no comment",
            setting.key
        );
        if setting.default.parse::<u64>().is_err() {
            continue;
        }
        let comment = setting.comment.join(" ");
        let beyond = (u64::MAX / 2).to_string();
        let message = error(&with_variables(&[(&variable_name(&setting.key), &beyond)]));
        let range = message
            .split("whole number from ")
            .nth(1)
            .unwrap_or_default();
        let stated = range.replace(" to ", "..");
        let (from, to) = stated.split_once("..").unwrap_or_default();
        assert!(
            comment.contains(&format!("{from} to {to}")),
            "{}: {message}",
            setting.key
        );
    }
}

#[test]
fn notifications_are_tried_again_by_the_documented_schedule() {
    let retries = Config::load(&minimal()).unwrap().notifications.retries;
    let (minute, hour) = (60, 3_600);
    let waits = [
        5,
        5 * minute,
        30 * minute,
        2 * hour,
        5 * hour,
        10 * hour,
        14 * hour,
        20 * hour,
        24 * hour,
    ];
    let expected = NotificationRetries {
        schedule: waits.map(std::time::Duration::from_secs).to_vec(),
        jitter_percent: 10,
        max_retry_after: std::time::Duration::from_secs(hour),
    };
    assert_eq!(retries, expected);
    let docs = include_str!("../../../../docs/notifications.md");
    let told = "after 5 seconds, 5 and 30 minutes, 2, 5, 10, 14, 20 and 24 hours";
    assert!(docs.contains(told), "{told}");
}

#[test]
fn webhooks_have_their_documented_defaults_and_their_waits_fit_together() {
    let webhooks = Config::load(&minimal()).unwrap().webhooks;
    let seconds = std::time::Duration::from_secs;
    let expected = WebhooksConfig {
        max_body_bytes: 262_144,
        read_timeout: seconds(10),
        max_stores: 4,
        poll_interval: seconds(1),
        concurrency: 16,
        claim: seconds(120),
        retries: WebhookRetries {
            first: seconds(1),
            max: seconds(900),
            max_attempts: 30,
            wait: seconds(30 * 86_400),
        },
        retention: WebhookRetention {
            done: seconds(30 * 86_400),
            dead: seconds(365 * 86_400),
            unnamed: seconds(30 * 86_400),
            every: seconds(600),
        },
    };
    assert_eq!(webhooks, expected);
    let message = error(&with_variables(&[(
        "QUITTANCE_WEBHOOKS__KEEP_DEAD_DAYS",
        "29",
    )]));
    assert!(message.contains("webhooks.keep_dead_days"), "{message}");
    let message = error(&with_variables(&[(
        "QUITTANCE_NOTIFICATIONS__KEEP_DEAD_DAYS",
        "29",
    )]));
    assert!(
        message.contains("notifications.keep_dead_days"),
        "{message}"
    );
    let message = error(&with_variables(&[(
        "QUITTANCE_WEBHOOKS__RETRY_MAX_MS",
        "999",
    )]));
    assert!(message.contains("webhooks.retry_first_ms"), "{message}");
    // The account's own total timeout is 10 s.
    let message = error(&with_variables(&[(
        "QUITTANCE_WEBHOOKS__CLAIM_SECONDS",
        "20",
    )]));
    assert!(message.contains("webhooks.claim_seconds"), "{message}");
}

#[test]
fn webhook_secrets_are_read_from_a_file_one_a_line() {
    let (old, new) = ("whsec_old", "whsec_new");
    let mut secrets = tempfile::NamedTempFile::new().unwrap();
    write!(secrets, "{old}\n\n  {new}\n").unwrap();
    let given = |more: &str| {
        let path = secrets.path().display();
        let (sources, file) = with_file(&format!(
            "[[providers.accounts]]\nname = \"sandbox\"\nkind = \"sandbox\"\napi_key = \"k\"\n\
             base_url = \"https://sandbox.example\"\nwebhook_secrets_file = \"{path}\"\n{more}"
        ));
        (Config::load(&sources), file)
    };
    let config = given("").0.unwrap();
    let read = &config.providers.accounts.first().unwrap().webhook_secrets;
    let read: Vec<_> = read
        .iter()
        .map(quittance_providers::config::Secret::expose)
        .collect();
    assert_eq!(read, [old, new]);
    assert!(!format!("{config:?}").contains(old));
    let both = given("webhook_secrets = []\n").0.map(|_| ()).unwrap_err();
    assert!(both.to_string().contains("webhook_secrets_file"), "{both}");
}
