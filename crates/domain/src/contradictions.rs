//! What was told against what is known of a transaction, and is on record.

/// Most contradictions of a transaction that are remembered while a case about them is open. The oldest is forgotten first:
/// told again, it is put on record again.
pub const MAX_CONTRADICTIONS: usize = 16;

/// What was told against what is known of a transaction while a case about it is open: each is put on record once, and
/// another one is news, though a case is open already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contradictions(Vec<String>);

impl Contradictions {
    /// Reads them as they are stored, one a line.
    pub fn from_stored(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }

    /// As they are stored: one a line, oldest first; empty where there is none.
    pub fn to_stored(&self) -> String {
        self.0.join("\n")
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Remembers what was told, in one line; whether it is news.
    pub(crate) fn add(&mut self, told: &str) -> bool {
        let line = told.replace(['\n', '\r'], " ");
        if self.0.contains(&line) {
            return false;
        }
        if self.0.len() >= MAX_CONTRADICTIONS {
            self.0.remove(0);
        }
        self.0.push(line);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_news_once_and_they_read_as_they_were_stored() {
        let mut told = Contradictions::default();
        assert!(told.is_empty());
        assert_eq!(told.to_stored(), "");
        assert!(told.add("APPROVED pi_2") && told.add("APPROVED pi_3"));
        assert!(!told.add("APPROVED pi_2"));
        assert_eq!(Contradictions::from_stored(&told.to_stored()), told);
        assert_eq!(Contradictions::from_stored(""), Contradictions::default());
    }

    #[test]
    fn i12_the_oldest_is_forgotten_where_there_are_too_many() {
        let mut told = Contradictions::default();
        for n in 0..=MAX_CONTRADICTIONS {
            assert!(told.add(&format!("APPROVED pi_{n}")));
        }
        assert_eq!(told.0.len(), MAX_CONTRADICTIONS);
        assert!(!told.add("APPROVED pi_1"));
        assert!(told.add("APPROVED pi_0"), "told again");
    }
}
