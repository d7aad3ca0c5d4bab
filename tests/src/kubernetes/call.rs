//! Requests to the API server without the start of a kubectl for each.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{ADMIN_TOKEN, ControlPlane, address};
use crate::tools::text;

impl ControlPlane {
    /// Asks the API server as the administrator; the body of a `PATCH` is a merge patch. Anything but
    /// a success is an error.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("https://{}{path}", address(&self.host));
        let authority = self.directory.join("certs/apiserver.crt");
        let token = format!("Authorization: Bearer {ADMIN_TOKEN}");
        let kind = match method {
            "PATCH" => "Content-Type: application/merge-patch+json",
            _ => "Content-Type: application/json",
        };
        let body = body.map(ToString::to_string);
        let mut arguments = vec![
            "--silent",
            "--show-error",
            "--cacert",
            text(&authority),
            "--header",
            &token,
            "--header",
            kind,
            "--write-out",
            "\n%{http_code}",
            "--request",
            method,
        ];
        arguments.extend(body.iter().flat_map(|body| ["--data-raw", body.as_str()]));
        arguments.push(&url);
        let said = self.host.run("curl", &arguments)?;
        let (answer, code) = said.rsplit_once('\n').context("curl printed no code")?;
        ensure!(code.starts_with('2'), "{method} {path}: {code} {answer}");
        serde_json::from_str(answer).with_context(|| format!("{method} {path}: {answer}"))
    }
}
