//! Drives a headless Chromium over the `DevTools` protocol.
//!
//! The browser is told to speak the protocol over two pipes (`--remote-debugging-pipe`): it reads commands
//! from descriptor 3 and writes replies and events to descriptor 4, JSON texts that end in a zero byte. No port is
//! opened, and nothing but JSON is needed. The protocol: <https://chromedevtools.github.io/devtools-protocol/>.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser that does not answer for this long never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page in a browser of its own. The browser ends when this is dropped.
pub struct Page {
    browser: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    events: VecDeque<Value>,
    session: String,
    last_id: u64,
    _profile: TempDir,
}

impl Page {
    /// Starts a browser with an empty profile and opens a file in a window of a size in pixels.
    pub fn open(file: &Path, (width, height): (u32, u32)) -> Result<Self> {
        Self::open_at(file, "", (width, height))
    }

    /// The same, with a fragment to the file's address.
    pub fn open_at(file: &Path, fragment: &str, (width, height): (u32, u32)) -> Result<Self> {
        let mut page = Self::start()?;
        for domain in ["Page", "Runtime", "Network", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}))?;
        }
        page.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        )?;
        page.media("prefers-color-scheme", "light")?;
        let url = format!("file://{}{fragment}", file.canonicalize()?.display());
        let opened = page.call("Page.navigate", json!({"url": url}))?;
        ensure!(opened.get("errorText").is_none(), "cannot open {url}: {opened}");
        page.wait_for("Page.loadEventFired")?;
        Ok(page)
    }

    fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        // The shell moves the pipes to where the browser looks for them.
        let mut browser = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"])
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--disable-default-apps", "--disable-extensions", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = browser.stdin.take().context("the browser has no standard input")?;
        let replies = browser.stdout.take().context("the browser has no standard output")?;
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(replies).split(0) {
                let Ok(message) = message else { break };
                let Ok(message) = serde_json::from_slice(&message) else { break };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut page = Self {
            browser,
            commands,
            messages,
            events: VecDeque::new(),
            session: String::new(),
            last_id: 0,
            _profile: profile,
        };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"})).context(
            "no answer from `chromium`: is it installed and on PATH? (Debian: apt-get install chromium)",
        )?;
        let attached =
            page.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))?;
        attached["sessionId"].as_str().context("the browser names no session")?.clone_into(&mut page.session);
        Ok(page)
    }

    /// Calls a method of the protocol and waits for its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let mut text = command.to_string().into_bytes();
        text.push(0);
        self.commands.write_all(&text).with_context(|| format!("sending {method}"))?;
        loop {
            let message =
                self.next_message().with_context(|| format!("waiting for the result of {method}"))?;
            if message["id"] == json!(id) {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(message["result"].clone());
            }
            self.events.push_back(message);
        }
    }

    fn next_message(&mut self) -> Result<Value> {
        match self.messages.recv_timeout(PATIENCE) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => bail!("the browser says nothing"),
            Err(RecvTimeoutError::Disconnected) => bail!("the browser has ended"),
        }
    }

    fn wait_for(&mut self, event: &str) -> Result<()> {
        while !self.events.iter().any(|message| message["method"] == event) {
            let message = self.next_message().with_context(|| format!("waiting for {event}"))?;
            self.events.push_back(message);
        }
        Ok(())
    }

    /// Takes a feature of the medium for something else: `prefers-color-scheme` for `dark`.
    pub fn media(&mut self, feature: &str, value: &str) -> Result<()> {
        let parameters = json!({"features": [{"name": feature, "value": value}]});
        self.call("Emulation.setEmulatedMedia", parameters).map(drop)
    }

    /// The value of an expression of JavaScript; what it throws is an error.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", parameters)?;
        if let Some(thrown) = result.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(result["result"]["value"].clone())
    }

    /// The text of the first element that a selector finds, as a reader sees it.
    pub fn text(&mut self, selector: &str) -> Result<String> {
        let found = self.evaluate(&format!("document.querySelector({}).innerText", json!(selector)))?;
        found.as_str().map(str::to_owned).with_context(|| format!("{selector} has no text"))
    }

    /// Waits until an expression is true.
    pub fn wait_until(&mut self, expression: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.evaluate(&format!("Boolean({expression})"))? != json!(true) {
            ensure!(Instant::now() < until, "it never came true: {expression}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Moves the pointer to a point of the window.
    pub fn point_at(&mut self, (x, y): (f64, f64)) -> Result<()> {
        self.mouse("mouseMoved", (x, y), "none", 0)
    }

    /// Clicks on a point of the window with the first button.
    pub fn click_at(&mut self, (x, y): (f64, f64)) -> Result<()> {
        self.point_at((x, y))?;
        self.mouse("mousePressed", (x, y), "left", 1)?;
        self.mouse("mouseReleased", (x, y), "left", 1)
    }

    /// Presses the first button at one point and lets go at another.
    pub fn drag(&mut self, from: (f64, f64), to: (f64, f64)) -> Result<()> {
        self.point_at(from)?;
        self.mouse("mousePressed", from, "left", 1)?;
        for step in 1..=4 {
            let part = f64::from(step) / 4.0;
            let at = (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
            self.mouse("mouseMoved", at, "left", 0)?;
        }
        self.mouse("mouseReleased", to, "left", 1)
    }

    fn mouse(&mut self, kind: &str, (x, y): (f64, f64), button: &str, clicks: u32) -> Result<()> {
        let held = u32::from(button == "left" && kind != "mouseReleased");
        let parameters =
            json!({"type": kind, "x": x, "y": y, "button": button, "buttons": held, "clickCount": clicks});
        self.call("Input.dispatchMouseEvent", parameters).map(drop)
    }

    /// Clicks on the middle of the first element that a selector finds.
    pub fn click(&mut self, selector: &str) -> Result<()> {
        let middle = self.middle(selector)?;
        self.click_at(middle)
    }

    /// The middle of the first element that a selector finds, scrolled into sight.
    pub fn middle(&mut self, selector: &str) -> Result<(f64, f64)> {
        let area = self.evaluate(&format!(
            "(() => {{ const found = document.querySelector({}); found.scrollIntoView({{block: 'nearest'}}); \
             const area = found.getBoundingClientRect(); \
             return [area.x + area.width / 2, area.y + area.height / 2, area.width]; }})()",
            json!(selector)
        ))?;
        ensure!(area[2].as_f64() > Some(0.0), "{selector} is not to be seen");
        Ok((area[0].as_f64().context("no x")?, area[1].as_f64().context("no y")?))
    }

    /// Types into whatever has the focus.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({"text": text})).map(drop)
    }

    /// Presses a key by its name (`Enter`, `ArrowDown`) or letter.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let text = if key.chars().count() == 1 { key } else { "" };
        let kind = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let down = json!({"type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", down)?;
        let up = json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up).map(drop)
    }

    /// Chooses an option of a select element by its value, as a reader would.
    pub fn choose(&mut self, selector: &str, value: &str) -> Result<()> {
        self.evaluate(&format!(
            "(() => {{ const select = document.querySelector({}); select.value = {}; \
             select.dispatchEvent(new Event('change', {{bubbles: true}})); }})()",
            json!(selector),
            json!(value)
        ))
        .map(drop)
    }

    /// A picture of the window as PNG, in base64.
    pub fn screenshot(&mut self) -> Result<String> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        shot["data"].as_str().map(str::to_owned).context("no picture")
    }

    /// Every address that the page has asked for since it was opened.
    pub fn requests(&mut self) -> Result<Vec<String>> {
        self.evaluate("new Promise((done) => setTimeout(done, 50))")?;
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        Ok(sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect())
    }

    /// Everything that went wrong in the page: errors in the console, exceptions, refusals of the policy.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        self.evaluate("new Promise((done) => setTimeout(done, 50))")?;
        let wrong = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                matches!(event["params"]["type"].as_str(), Some("error" | "warning" | "assert"))
            }
            Some("Log.entryAdded") => {
                matches!(event["params"]["entry"]["level"].as_str(), Some("error" | "warning"))
            }
            _ => false,
        };
        Ok(self.events.iter().filter(wrong).map(|event| event["params"].to_string()).collect())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // The browser is asked to end, so that its own processes end with it; it may be gone already.
        self.session.clear();
        let _ = self.call("Browser.close", json!({}));
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if matches!(self.browser.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}
