//! What a caller may be allowed to do.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A role of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Create, confirm, capture, void and sync payments of the tenant.
    PaymentsWrite,
    /// Refund payments of the tenant.
    PaymentsRefund,
    /// Read payments of the tenant.
    PaymentsRead,
    /// Read the tenant's part of the audit log.
    AuditRead,
    /// Administer the tenant: operator actions, webhooks, notifications.
    Admin,
    /// Read the audit log of all tenants, and verify it.
    PlatformAudit,
    /// Administer all tenants.
    PlatformAdmin,
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown role {0:?}; the roles are {list}", list = Role::list())]
pub struct UnknownRole(String);

impl Role {
    /// All roles.
    pub const ALL: [Self; 7] = [
        Self::PaymentsWrite,
        Self::PaymentsRefund,
        Self::PaymentsRead,
        Self::AuditRead,
        Self::Admin,
        Self::PlatformAudit,
        Self::PlatformAdmin,
    ];

    /// The role's name, as stored and as callers know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PaymentsWrite => "payments.write",
            Self::PaymentsRefund => "payments.refund",
            Self::PaymentsRead => "payments.read",
            Self::AuditRead => "audit.read",
            Self::Admin => "admin",
            Self::PlatformAudit => "platform.audit",
            Self::PlatformAdmin => "platform.admin",
        }
    }

    /// What the role is for, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::PaymentsWrite => {
                "Create, confirm, capture, void and sync payments of the tenant."
            }
            Self::PaymentsRefund => "Refund payments of the tenant.",
            Self::PaymentsRead => "Read payments of the tenant, and watch them.",
            Self::AuditRead => "Read the tenant's part of the audit log.",
            Self::Admin => "Administer the tenant.",
            Self::PlatformAudit => "Read the audit log of all tenants, and verify it.",
            Self::PlatformAdmin => "Administer all tenants.",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::PaymentsWrite => 1,
            Self::PaymentsRefund => 2,
            Self::PaymentsRead => 4,
            Self::AuditRead => 8,
            Self::Admin => 16,
            Self::PlatformAudit => 32,
            Self::PlatformAdmin => 64,
        }
    }

    fn list() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let role = Self::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| UnknownRole(text.chars().take(64).collect()))
    }
}

/// A set of roles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Roles(u8);

impl Roles {
    /// Whether the set has this role.
    pub const fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// Whether the set has all of these roles.
    pub const fn contains_all(self, roles: Self) -> bool {
        self.0 & roles.0 == roles.0
    }

    /// The roles in it.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL
            .into_iter()
            .filter(move |role| self.contains(*role))
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Role::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_name_and_a_bit_of_its_own() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            let only: Roles = [role].into_iter().collect();
            assert_eq!(only.iter().collect::<Vec<_>>(), [role]);
        }
        let all: Roles = Role::ALL.into_iter().collect();
        assert_eq!(all.iter().count(), Role::ALL.len());
        let one: Roles = [Role::Admin].into_iter().collect();
        assert!(all.contains_all(one) && one.contains_all(one) && !one.contains_all(all));
        assert!("root".parse::<Role>().is_err());
    }
}
