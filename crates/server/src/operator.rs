//! Who runs a command: the user as the operating system knows it.

use quittance_domain::context::{Actor, ActorKind};

use crate::trail::Operator;

/// Users and their numbers (passwd(5)).
const PASSWD: &str = "/etc/passwd";
/// Who called `sudo` (sudo(8)).
const SUDO_USER: &str = "SUDO_USER";
/// Longest user name that is taken over; Linux allows 32 characters.
const NAME_MAX: usize = 64;

impl Operator {
    /// As the record names them.
    pub(crate) fn actor(&self) -> Actor {
        Actor {
            kind: ActorKind::Operator,
            id: self.name.clone(),
            auth_method: "os_user",
        }
    }
}

/// Whoever runs this process.
pub fn current() -> Operator {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string(PASSWD).unwrap_or_default();
    let sudo_user = std::env::var(SUDO_USER).ok();
    named(uid, &passwd, sudo_user.as_deref())
}

fn named(uid: u32, passwd: &str, sudo_user: Option<&str>) -> Operator {
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| is_name(name))?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    Operator {
        name: name.unwrap_or_else(|| format!("uid {uid}")),
        sudo_user: sudo_user
            .filter(|name| uid == 0 && is_name(name))
            .map(str::to_owned),
    }
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'$' | b'@');
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\n\nshop:x:1000:1000::/:/bin/sh\n";

    #[test]
    fn a_user_has_its_name_or_its_number() {
        assert_eq!(named(1000, USERS, None).name, "shop");
        assert_eq!(named(1001, USERS, None).name, "uid 1001");
        assert_eq!(named(0, "", None).name, "uid 0");
        assert!(!current().name.is_empty());
    }

    #[test]
    fn only_root_acts_for_another() {
        let sudo = |uid, name| named(uid, USERS, Some(name)).sudo_user;
        assert_eq!(sudo(0, "shop").as_deref(), Some("shop"));
        assert_eq!(sudo(1000, "root"), None);
        assert_eq!(sudo(0, "a\nb"), None);
        assert_eq!(sudo(0, ""), None);
    }
}
