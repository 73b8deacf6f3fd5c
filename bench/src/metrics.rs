//! The server's own metrics, and whether it is ready.

use std::time::Duration;

use anyhow::Context as _;

/// Of `payment.commit.batch_size`.
const BATCH: &str = "payment_commit_batch_size";
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The HTTP side of the server.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    base_url: String,
}

/// Database commits of changes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Batches {
    /// How many.
    pub commits: f64,
    /// Changes that they wrote.
    pub changes: f64,
}

impl Batches {
    /// Changes per commit since an earlier moment; `None` where there was no commit.
    pub fn average_since(self, earlier: Self) -> Option<f64> {
        let commits = self.commits - earlier.commits;
        (commits > 0.0).then(|| (self.changes - earlier.changes) / commits)
    }

    /// Sums the series of the histogram in Prometheus text.
    fn parse(text: &str) -> Self {
        let sum = |suffix: &str| {
            let name = format!("{BATCH}{suffix}");
            let series = text.lines().filter_map(|line| line.strip_prefix(&name));
            // A longer name is another metric.
            let series = series.filter(|rest| rest.starts_with([' ', '{']));
            series
                .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        Self {
            commits: sum("_count"),
            changes: sum("_sum"),
        }
    }
}

impl Http {
    /// Of a server with a certificate of this authority.
    ///
    /// # Errors
    /// For a certificate that is not one.
    pub fn new(base_url: String, ca_pem: &str) -> anyhow::Result<Self> {
        // Fails only where one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(ca_pem.as_bytes())?])
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { client, base_url })
    }

    /// Whether the server says that it can serve.
    pub async fn is_ready(&self) -> bool {
        let response = self
            .client
            .get(format!("{}/readyz", self.base_url))
            .send()
            .await;
        response.is_ok_and(|response| response.status().is_success())
    }

    /// Its commits so far.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn batches(&self) -> anyhow::Result<Batches> {
        let response = self
            .client
            .get(format!("{}/metrics", self.base_url))
            .send()
            .await;
        let text = response
            .context("read the server's metrics")?
            .error_for_status()?
            .text()
            .await?;
        Ok(Batches::parse(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_the_histogram_since_an_earlier_moment() {
        let text = "# TYPE payment_commit_batch_size histogram\n\
            payment_commit_batch_size_bucket{le=\"1\"} 2\n\
            payment_commit_batch_size_sum{scope=\"a\"} 30\n\
            payment_commit_batch_size_count{scope=\"a\"} 4\n\
            payment_commit_batch_size_summary 9\n";
        let now = Batches::parse(text);
        assert_eq!(
            now,
            Batches {
                commits: 4.0,
                changes: 30.0
            }
        );
        let earlier = Batches {
            commits: 2.0,
            changes: 10.0,
        };
        assert_eq!(now.average_since(earlier), Some(10.0));
        assert_eq!(now.average_since(now), None);
    }
}
