//! The one table of who may call what: role × RPC. `docs/roles.md` is generated from it, and every
//! RPC of the contract has a row (both tested).

use super::role::{Role, Roles};

/// Who may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without credentials.
    Open,
    /// Anybody with valid credentials.
    Authenticated,
    /// Callers that have one of these roles, the usual one first.
    AnyOf(&'static [Role]),
}

impl Access {
    /// Whether a caller with these roles may call.
    ///
    /// # Errors
    /// The role that is usually given for this, where the caller has none that suffices.
    pub fn check(self, roles: Roles) -> Result<(), Role> {
        match self {
            Self::Open | Self::Authenticated => Ok(()),
            Self::AnyOf(wanted) if wanted.iter().any(|role| roles.contains(*role)) => Ok(()),
            // A row without a role would be for nobody; PlatformAdmin is the nearest to nobody.
            Self::AnyOf(wanted) => Err(wanted.first().copied().unwrap_or(PlatformAdmin)),
        }
    }
}

/// One RPC: how it is called, and by whom it may be.
#[derive(Debug, Clone, Copy)]
pub struct Rpc {
    /// The full method, as spans, metrics and audit entries name it.
    pub method: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Whether it answers with a stream, which may stay open for long.
    pub streams: bool,
    /// Whether it can move money, or looks up by key what did: then a refusal must not deny what an earlier call did.
    pub denies_nothing: bool,
}

const fn unary(method: &'static str, roles: &'static [Role]) -> Rpc {
    Rpc {
        method,
        access: Access::AnyOf(roles),
        streams: false,
        denies_nothing: false,
    }
}

const fn command(method: &'static str, roles: &'static [Role]) -> Rpc {
    Rpc {
        denies_nothing: true,
        ..unary(method, roles)
    }
}

/// Finds a payment again, also by the key of a call whose answer was lost.
const fn lookup(method: &'static str, roles: &'static [Role]) -> Rpc {
    Rpc {
        denies_nothing: true,
        ..unary(method, roles)
    }
}

const fn stream(method: &'static str, roles: &'static [Role]) -> Rpc {
    Rpc {
        method,
        access: Access::AnyOf(roles),
        streams: true,
        denies_nothing: false,
    }
}

use Role::{
    Admin, AuditRead, PaymentsRead, PaymentsRefund, PaymentsWrite, PlatformAdmin, PlatformAudit,
};

/// Every RPC of the contract.
pub const RPCS: &[Rpc] = &[
    command(
        "quittance.v1.PaymentService/CreatePayment",
        &[PaymentsWrite],
    ),
    command(
        "quittance.v1.PaymentService/ConfirmPayment",
        &[PaymentsWrite],
    ),
    command(
        "quittance.v1.PaymentService/CapturePayment",
        &[PaymentsWrite],
    ),
    command("quittance.v1.PaymentService/VoidPayment", &[PaymentsWrite]),
    command(
        "quittance.v1.PaymentService/RefundPayment",
        &[PaymentsRefund],
    ),
    command("quittance.v1.PaymentService/SyncPayment", &[PaymentsWrite]),
    lookup("quittance.v1.PaymentService/GetPayment", &[PaymentsRead]),
    unary("quittance.v1.PaymentService/ListPayments", &[PaymentsRead]),
    stream("quittance.v1.PaymentService/WatchPayments", &[PaymentsRead]),
    unary(
        "quittance.v1.AuditService/ListEntries",
        &[AuditRead, PlatformAudit],
    ),
    unary(
        "quittance.v1.AuditService/GetEntry",
        &[AuditRead, PlatformAudit],
    ),
    stream(
        "quittance.v1.AuditService/TailEntries",
        &[AuditRead, PlatformAudit],
    ),
    unary(
        "quittance.v1.AuditService/GetCheckpoint",
        &[AuditRead, PlatformAudit],
    ),
    unary(
        "quittance.v1.AuditService/GetInclusionProof",
        &[AuditRead, PlatformAudit],
    ),
    unary(
        "quittance.v1.AuditService/GetConsistencyProof",
        &[AuditRead, PlatformAudit],
    ),
    unary(
        "quittance.v1.AuditService/ExportEvidence",
        &[AuditRead, PlatformAudit],
    ),
    unary(
        "quittance.v1.AuditService/SummarizeFailures",
        &[AuditRead, PlatformAudit],
    ),
    stream("quittance.v1.AuditService/VerifyLog", &[PlatformAudit]),
    stream("quittance.v1.AuditService/Reconcile", &[PlatformAudit]),
    unary(
        "quittance.v1.AdminService/ListOperatorActions",
        &[Admin, PlatformAdmin],
    ),
    command(
        "quittance.v1.AdminService/ResolveTransaction",
        &[Admin, PlatformAdmin],
    ),
    command(
        "quittance.v1.AdminService/RetryTransaction",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/ErasePersonalData",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/GetErasure",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/CreateNotificationEndpoint",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/ListNotificationEndpoints",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/UpdateNotificationEndpoint",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/DeleteNotificationEndpoint",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/TestNotificationEndpoint",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/RotateNotificationEndpointSecret",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/ListNotifications",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/GetNotification",
        &[Admin, PlatformAdmin],
    ),
    unary(
        "quittance.v1.AdminService/ReplayNotifications",
        &[Admin, PlatformAdmin],
    ),
    unary("quittance.v1.AdminService/ListWebhooks", &[PlatformAdmin]),
    unary("quittance.v1.AdminService/GetWebhook", &[PlatformAdmin]),
    unary("quittance.v1.AdminService/ReplayWebhook", &[PlatformAdmin]),
];

/// Health is open: load balancers have no API key.
pub const HEALTH: &[Rpc] = &[
    Rpc {
        method: "grpc.health.v1.Health/Check",
        access: Access::Open,
        streams: false,
        denies_nothing: false,
    },
    Rpc {
        method: "grpc.health.v1.Health/List",
        access: Access::Open,
        streams: false,
        denies_nothing: false,
    },
    Rpc {
        method: "grpc.health.v1.Health/Watch",
        access: Access::Open,
        streams: true,
        denies_nothing: false,
    },
];

/// Reflection: what its rows allow is a setting.
pub const REFLECTION: &[&str] = &[
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    fn contract() -> Vec<(String, bool)> {
        let set = FileDescriptorSet::decode(quittance_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut rpcs = Vec::new();
        for file in set
            .file
            .iter()
            .filter(|file| file.package() == "quittance.v1")
        {
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                    rpcs.push((name, method.server_streaming()));
                }
            }
        }
        rpcs
    }

    #[test]
    fn every_rpc_of_the_contract_has_exactly_one_row() {
        let contract: BTreeSet<_> = contract().into_iter().collect();
        let table: BTreeSet<_> = RPCS
            .iter()
            .map(|rpc| (rpc.method.to_owned(), rpc.streams))
            .collect();
        assert_eq!(table, contract);
        assert_eq!(table.len(), RPCS.len(), "a row appears twice");
    }

    #[test]
    fn every_role_opens_exactly_the_rpcs_that_name_it() {
        for rpc in RPCS {
            let Access::AnyOf(wanted) = rpc.access else {
                panic!("{} is open", rpc.method)
            };
            assert!(!wanted.is_empty(), "{}", rpc.method);
            assert!(
                rpc.access.check(Roles::default()).is_err(),
                "{}",
                rpc.method
            );
            for role in Role::ALL {
                let only: Roles = [role].into_iter().collect();
                let expected = if wanted.contains(&role) {
                    Ok(())
                } else {
                    Err(wanted[0])
                };
                assert_eq!(rpc.access.check(only), expected, "{} as {role}", rpc.method);
            }
        }
    }

    #[test]
    fn nothing_that_writes_is_open_to_a_reader() {
        let reader: Roles = [PaymentsRead, AuditRead, PlatformAudit]
            .into_iter()
            .collect();
        let payments = ["Create", "Confirm", "Capture", "Void", "Refund", "Sync"]
            .map(|name| format!("quittance.v1.PaymentService/{name}Payment"));
        let admin =
            ["Resolve", "Retry"].map(|name| format!("quittance.v1.AdminService/{name}Transaction"));
        let webhooks = ["quittance.v1.AdminService/ReplayWebhook".to_owned()];
        for method in payments.into_iter().chain(admin).chain(webhooks) {
            let rpc = RPCS.iter().find(|rpc| rpc.method == method).unwrap();
            assert!(rpc.access.check(reader).is_err(), "{method}");
        }
    }

    fn rendered() -> String {
        let mut text = String::from(
            "# Roles\n\nGenerated from `crates/server/src/auth/permissions.rs`, and compared with it by a test; to write it anew:\n\
             `UPDATE_DOCS=1 cargo test -p quittance-server permissions`.\n\n\
             A caller has the roles of its API key (`quittance keys create --role …`). A role is for one tenant, that of\n\
             the key; those that begin with `platform.` are across tenants. No role implies another. A call without the\n\
             role is answered PERMISSION_DENIED `ROLE_REQUIRED`, with the role in the metadata of the error.\n\n\
             | Role | For |\n| --- | --- |\n",
        );
        for role in Role::ALL {
            writeln!(text, "| `{role}` | {} |", role.meaning()).unwrap();
        }
        text.push_str("\n## Who may call what\n\n| RPC |");
        for role in Role::ALL {
            write!(text, " `{role}` |").unwrap();
        }
        text.push_str("\n| --- |");
        text.push_str(&" --- |".repeat(Role::ALL.len()));
        text.push('\n');
        for rpc in RPCS {
            let short = rpc
                .method
                .trim_start_matches("quittance.v1.")
                .replace('/', ".");
            write!(text, "| `{short}` |").unwrap();
            for role in Role::ALL {
                let only: Roles = [role].into_iter().collect();
                let cell = if rpc.access.check(only).is_ok() {
                    "yes"
                } else {
                    ""
                };
                write!(text, " {cell} |").unwrap();
            }
            text.push('\n');
        }
        text.push_str(
            "\n`grpc.health.v1.Health` is open. Server reflection is open in `quittance dev`; elsewhere setting\n\
             `server.reflection` decides (default: any valid API key).\n",
        );
        text
    }

    #[test]
    fn the_documentation_shows_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/roles.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, rendered()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap_or_default(),
            rendered()
        );
    }
}
