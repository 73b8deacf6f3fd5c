//! What `quittance dev` prints when it is ready.

use std::path::Path;

use super::{API_KEY_FILE, DevServer, SANDBOX_KEY_FILE, TENANT};

impl DevServer {
    /// Where everything is, and a first payment to copy and paste.
    pub fn banner(&self) -> String {
        let scheme = if self.is_plaintext { "http" } else { "https" };
        let (grpc, http) = (self.server.grpc_addr(), self.server.http_addr());
        let key_file = self.directory.path(API_KEY_FILE);
        let mut lines = vec![
            String::new(),
            format!(
                "Quittance {} · development mode, no real money",
                env!("CARGO_PKG_VERSION")
            ),
            String::new(),
            format!("  gRPC      {scheme}://{grpc}"),
            format!("  HTTP      {scheme}://{http}/readyz  /healthz  /metrics"),
        ];
        if !self.is_plaintext {
            lines.push(format!("  CA        {}", self.ca_file().display()));
        }
        lines.push(format!(
            "  API key   {}  (tenant {TENANT})",
            key_file.display()
        ));
        if let Some(sandbox) = &self.sandbox {
            let key = self.directory.path(SANDBOX_KEY_FILE);
            lines.push(format!(
                "  Sandbox   {}/books  (key: {})",
                sandbox.base_url(),
                key.display()
            ));
        }
        lines.push(format!(
            "  Data      {}",
            self.directory.as_path().display()
        ));
        lines.push(String::new());
        lines.push("A payment of 19.99 EUR (tokens: docs/sandbox.md):".to_owned());
        lines.push(String::new());
        lines.push(self.first_payment(&key_file));
        lines.push(String::new());
        lines.push("Ctrl-C stops it; the data is kept.".to_owned());
        lines.join("\n")
    }

    fn first_payment(&self, key_file: &Path) -> String {
        let security = if self.is_plaintext {
            "-plaintext".to_owned()
        } else {
            format!("-cacert {}", self.ca_file().display())
        };
        format!(
            "  grpcurl {security} \\\n    -H \"authorization: Bearer $(cat {})\" \\\n    -d '{{\"idempotency_key\":\"order-1\",\
             \"amount\":{{\"minor_units\":1999,\"currency_code\":\"EUR\"}},\
             \"payment_method\":{{\"type\":\"PAYMENT_METHOD_TYPE_CARD\",\"provider_token\":\"tok_approve\"}}}}' \\\n    \
             {} quittance.v1.PaymentService/CreatePayment",
            key_file.display(),
            self.server.grpc_addr(),
        )
    }
}
