//! How a hand-written statement is declared, so that it is prepared once.

/// Declares a statement: its answer's type, and its text with what is bound in between.
macro_rules! statement {
    ($name:ty, $static:ty, $answer:ty, |$self:ident, $out:ident| $walk:block) => {
        impl diesel::query_builder::QueryFragment<diesel::pg::Pg> for $name {
            fn walk_ast<'b>(&'b $self, mut $out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>) -> diesel::result::QueryResult<()> {
                $walk
                Ok(())
            }
        }

        impl diesel::query_builder::QueryId for $name {
            type QueryId = $static;
            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl diesel::query_builder::Query for $name {
            type SqlType = $answer;
        }
    };
}

pub(crate) use statement;
