//! A headless browser, driven by WebDriver (W3C) through `chromedriver`; nothing but the standard library and JSON.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Longest wait for one answer: a browser that starts beside other programs takes its time.
const ANSWER: Duration = Duration::from_secs(300);
/// One browser runs at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Where Debian and others put the browser.
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// Nothing is asked of anybody on the way: whatever is in the log of the network is the page's.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A running browser with one window.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver alone would leave it behind.
        let session = self.session.clone();
        let _ = self.exchange("DELETE", &session, None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A browser, or `None` where there is none: then this says so, and the test passes, except in CI.
pub fn browser_or_skip() -> Option<Browser> {
    match start() {
        Ok(browser) => Some(browser),
        Err(reason) => {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{reason}");
            println!("SKIPPED: no headless browser ({reason})");
            None
        }
    }
}

fn start() -> Result<Browser, String> {
    let is_there = |name: &&str| {
        let version = Command::new(name).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    };
    let browser = BROWSERS.into_iter().find(is_there);
    let browser = browser.ok_or("neither chromium nor google-chrome runs")?;
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut driver = driver.map_err(|error| format!("chromedriver: {error}"))?;
    let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.map_while(Result::ok).find_map(|line| {
        let port = line.split_once("successfully on port ")?.1;
        port.trim_end_matches('.').parse().ok()
    });
    let mut started = Browser {
        driver,
        port: port.ok_or("chromedriver does not say its port")?,
        session: String::new(),
        _turn: turn,
    };
    let options = json!({ "binary": which(browser), "args": ARGUMENTS });
    let capabilities = json!({ "capabilities": { "alwaysMatch": {
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
    } } });
    let session = started.exchange("POST", "/session", Some(&capabilities))?;
    let id = session["sessionId"].as_str().ok_or("there is no session")?;
    started.session = format!("/session/{id}");
    Ok(started)
}

/// The program's path: chromedriver does not search for it.
fn which(program: &str) -> String {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|directory| directory.join(program));
    let found = found.into_iter().find(|file| file.is_file()).unwrap();
    found.to_str().unwrap().to_owned()
}

impl Browser {
    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// Shows the page on a screen of that width, in CSS pixels, or as it is printed on paper of that width.
    pub fn show(&self, width: u32, printed: bool) {
        let medium = if printed { "print" } else { "screen" };
        self.devtools("Emulation.setEmulatedMedia", &json!({ "media": medium }));
        let metrics = json!({
            "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500 && !printed,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What a function's body returns in the page.
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What was written to a log (`browser`, `performance`) since it was last asked for.
    pub fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.post("se/log", &json!({ "type": kind }));
        entries.as_array().unwrap().clone()
    }

    /// The whole page as a picture (PNG).
    pub fn picture(&self) -> Vec<u8> {
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.devtools("Page.captureScreenshot", &whole);
        STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// The page as it is printed (PDF), on the paper that it asks for.
    pub fn paper(&self) -> Vec<u8> {
        let own = json!({ "preferCSSPageSize": true, "printBackground": true });
        let paper = self.devtools("Page.printToPDF", &own);
        STANDARD.decode(paper["data"].as_str().unwrap()).unwrap()
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let call = json!({ "cmd": command, "params": parameters });
        self.post("goog/cdp/execute", &call)
    }

    fn post(&self, what: &str, body: &Value) -> Value {
        let path = format!("{}/{what}", self.session);
        self.exchange("POST", &path, Some(body)).unwrap()
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let said = |error: std::io::Error| format!("chromedriver: {error}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(said)?;
        stream.set_read_timeout(Some(ANSWER)).map_err(said)?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(said)?;
        let mut answer = BufReader::new(stream);
        let mut length = None;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).map_err(said)?;
            if line.trim().is_empty() {
                break;
            }
            let line = line.to_ascii_lowercase();
            let value = line.strip_prefix("content-length:");
            length = value.and_then(|value| value.trim().parse().ok()).or(length);
        }
        let mut bytes = vec![0; length.ok_or("the answer has no length")?];
        answer.read_exact(&mut bytes).map_err(said)?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        match &answer["value"]["error"] {
            Value::Null => Ok(answer["value"].clone()),
            error => Err(format!("{error}: {}", answer["value"]["message"])),
        }
    }
}
