//! Lists that come in pages.

use crate::output;

/// Most items that are fetched at once: most items of a page.
pub(super) const PAGE: i32 = 500;

/// Fetches items until there are `limit` of them or no more, and tells whether there are more. `page` is given how many items
/// to ask for and the token of the page (empty for the first), and answers with the items and the token of the next.
///
/// # Errors
/// Those of `page`.
pub(super) async fn up_to<T>(
    limit: usize,
    mut page: impl AsyncFnMut(i32, String) -> anyhow::Result<(Vec<T>, String)>,
) -> anyhow::Result<(Vec<T>, bool)> {
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let left = limit.saturating_sub(found.len());
        let wanted = i32::try_from(left).map_or(PAGE, |left| left.min(PAGE));
        let (items, next) = page(wanted, token).await?;
        found.extend(items);
        if next.is_empty() || found.len() >= limit {
            let more = !next.is_empty() || found.len() > limit;
            found.truncate(limit);
            return Ok((found, more));
        }
        token = next;
    }
}

/// Fetches all items. `page` is as in [`up_to`].
///
/// # Errors
/// Those of `page`.
pub(super) async fn all<T>(
    page: impl AsyncFnMut(i32, String) -> anyhow::Result<(Vec<T>, String)>,
) -> anyhow::Result<Vec<T>> {
    Ok(up_to(usize::MAX, page).await?.0)
}

/// Says that there are more items than were shown.
pub(super) fn say_more(more: bool) {
    if more {
        output::line("There are more: raise --limit.");
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE, up_to};

    #[test]
    fn a_page_is_the_largest_that_the_server_gives() {
        assert_eq!(usize::try_from(PAGE).unwrap(), crate::convert::MAX_PAGE);
    }

    /// Lists 0 to 9, three at a time at most.
    async fn listed(limit: usize) -> (Vec<usize>, bool) {
        let page = async |wanted: i32, token: String| {
            let from = token.parse().unwrap_or(0);
            let to = (from + usize::try_from(wanted).unwrap().min(3)).min(10);
            let next = if to < 10 {
                to.to_string()
            } else {
                String::new()
            };
            anyhow::Ok(((from..to).collect(), next))
        };
        up_to(limit, page).await.unwrap()
    }

    #[tokio::test]
    async fn as_many_as_were_asked_for_come_and_it_says_whether_there_are_more() {
        assert_eq!(listed(1).await, (vec![0], true));
        assert_eq!(listed(4).await, ((0..4).collect(), true));
        assert_eq!(listed(9).await, ((0..9).collect(), true));
        assert_eq!(listed(10).await, ((0..10).collect(), false));
        assert_eq!(listed(usize::MAX).await, ((0..10).collect(), false));
    }
}
