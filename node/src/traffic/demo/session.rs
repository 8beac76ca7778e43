//! One visit, from its first event to its last: a pure function of its seed, so that it can span minutes and be made again.

use super::catalogue::{
    ACCOUNTS_PER_SHARE, APP_PAGES, BUTTONS, COUNTRIES, DEVICES, ERRORS, FEATURES, PLANS, PUBLIC_PAGES, REFERRERS, SEARCHES, SOURCES,
};
use super::random::Random;
use super::sample::{Properties, SampleEvent};

/// A visit lasts less than this, so that no more than so many earlier minutes can reach into one.
pub const SESSION_MINUTES_MAX: i64 = 30;
const SESSION_MS_MAX: i64 = SESSION_MINUTES_MAX * 60_000;
const STEPS_MAX: u16 = 60;
/// Visits without an account, of all.
const VISITOR_SHARE: f64 = 0.49;
/// Of all visits, as in [`SOURCES`]; only the web has visitors without an account.
const WEB_SHARE: f64 = 0.68;
/// Sign-ups that are finished, of those that are begun.
const CONVERSION: f64 = 0.38;
/// New accounts get numbers from here on, apart from the returning ones.
const NEW_ACCOUNTS_FROM: u64 = 1_000_000;
/// Numbers set aside for the accounts of one country.
const ACCOUNTS_PER_COUNTRY_MAX: f64 = 20_000.0;
const _: () = assert!(COUNTRIES.len() as u64 * ACCOUNTS_PER_COUNTRY_MAX as u64 <= NEW_ACCOUNTS_FROM);

/// What a visit knows about the minute that it began in.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    pub start_ms: i64,
    pub country: usize,
    /// Chance that an event is followed by an error.
    pub error_rate: f64,
}

/// Makes the events of one visit, in time order, all before `opening.start_ms` + [`SESSION_MINUTES_MAX`].
pub fn visit(mut random: Random, opening: Opening, out: &mut impl FnMut(SampleEvent)) {
    let session = random.wide_bits();
    let source = random.weighted(&SOURCES).unwrap_or("web");
    let visitor = source == "web" && random.chance(VISITOR_SHARE / WEB_SHARE);
    let account = (!visitor).then(|| Account::returning(&mut random, opening.country));
    let device = match (source, &account) {
        ("api", _) => "desktop",
        ("mobile", _) => {
            if random.chance(0.9) {
                "mobile"
            } else {
                "tablet"
            }
        }
        (_, Some(account)) if random.chance(0.85) => account.device,
        _ => random.weighted(&DEVICES).unwrap_or("desktop"),
    };
    let mut walk = Walk {
        template: SampleEvent {
            timestamp_ms: opening.start_ms,
            session,
            step: 0,
            name: "session_start",
            user: account.as_ref().map(|a| a.user),
            source,
            device,
            country: COUNTRIES[opening.country].0,
            value: None,
            properties: Properties::default(),
        },
        end_ms: opening.start_ms + SESSION_MS_MAX,
        referrer: if source == "web" { random.weighted(&REFERRERS) } else { None },
        error_rate: opening.error_rate,
        random,
        out,
    };
    match (source, account) {
        ("api", Some(account)) => walk.script(&account),
        (_, Some(account)) => walk.member(&account),
        (_, None) => walk.visitor(),
    }
}

struct Account {
    user: u64,
    plan: &'static str,
    price: f64,
    device: &'static str,
}

impl Account {
    /// Some accounts come far more often than others; a country's accounts are its own.
    fn returning(random: &mut Random, country: usize) -> Self {
        let accounts = (ACCOUNTS_PER_SHARE * COUNTRIES[country].1).min(ACCOUNTS_PER_COUNTRY_MAX);
        let user = country as u64 * ACCOUNTS_PER_COUNTRY_MAX as u64 + (random.unit().powi(2) * accounts) as u64;
        let mut own = Random::of(user, 0x61c8, 0);
        let plans = PLANS.map(|(plan, share, price)| ((plan, price), share));
        let (plan, price) = own.weighted(&plans).unwrap_or(("free", 0.0));
        Self { user, plan, price, device: own.weighted(&DEVICES).unwrap_or("desktop") }
    }
}

struct Walk<'a, F: FnMut(SampleEvent)> {
    random: Random,
    template: SampleEvent,
    end_ms: i64,
    referrer: Option<&'static str>,
    error_rate: f64,
    out: &'a mut F,
}

impl<F: FnMut(SampleEvent)> Walk<'_, F> {
    fn emit(&mut self, name: &'static str, value: Option<f64>, properties: Properties) {
        if self.is_over() {
            return;
        }
        (self.out)(SampleEvent { name, value, properties, ..self.template.clone() });
        self.template.step += 1;
        if name != "error_occurred" && self.random.chance(self.error_rate) {
            let kind = self.random.weighted(&ERRORS);
            self.pause(0.4);
            self.emit("error_occurred", None, Properties { kind, page: properties.page, ..Properties::default() });
        }
    }

    fn pause(&mut self, mean_s: f64) {
        let seconds = self.random.exponential(mean_s).clamp(0.05, 12.0 * mean_s);
        self.template.timestamp_ms += (seconds * 1_000.0) as i64;
    }

    fn is_over(&self) -> bool {
        self.template.timestamp_ms >= self.end_ms || self.template.step >= STEPS_MAX
    }

    fn page(&mut self, page: &'static str) {
        let slow = if self.template.device == "mobile" { 1.6 } else { 1.0 };
        let load_ms = (180.0 * slow * (0.55 * self.random.normal()).exp()) as u32;
        let properties = Properties { page: Some(page), referrer: self.referrer, load_ms: Some(load_ms), ..Properties::default() };
        self.emit("page_view", None, properties);
    }

    fn start(&mut self) -> i64 {
        self.emit("session_start", None, Properties { referrer: self.referrer, ..Properties::default() });
        self.pause(0.6);
        self.template.timestamp_ms
    }

    /// Browsers that are simply closed send no end.
    fn end(&mut self, started_ms: i64, chance: f64) {
        if self.random.chance(chance) {
            self.pause(5.0);
            let duration_s = ((self.template.timestamp_ms - started_ms) / 1_000) as u32;
            self.emit("session_end", None, Properties { duration_s: Some(duration_s), ..Properties::default() });
        }
    }

    fn visitor(&mut self) {
        let started_ms = self.start();
        let mut page = self.random.weighted(&PUBLIC_PAGES).unwrap_or("/");
        loop {
            self.page(page);
            self.click(page, 0.16);
            if self.random.chance(0.05) {
                self.pause(8.0);
                self.search(page);
            }
            self.pause(24.0);
            let intent = if page == "/pricing" { 0.20 } else { 0.06 };
            if self.random.chance(intent) {
                self.sign_up();
                break;
            }
            if self.is_over() || self.random.chance(0.34) {
                break;
            }
            page = self.random.weighted(&PUBLIC_PAGES).unwrap_or("/");
        }
        self.end(started_ms, 0.5);
    }

    fn sign_up(&mut self) {
        // The account exists from the first form on, so that the whole funnel has one user.
        self.template.user = Some(NEW_ACCOUNTS_FROM + self.random.below(10_000_000));
        self.page("/signup");
        self.pause(4.0);
        self.emit("signup_started", None, Properties { page: Some("/signup"), referrer: self.referrer, ..Properties::default() });
        if !self.random.chance(CONVERSION) {
            return;
        }
        self.pause(55.0);
        let plans = PLANS.map(|(plan, share, price)| ((plan, price), share));
        let (plan, price) = self.random.weighted(&plans).unwrap_or(("free", 0.0));
        self.emit("signup_completed", None, Properties { plan: Some(plan), referrer: self.referrer, ..Properties::default() });
        self.pause(3.0);
        self.page("/app/dashboard");
        if price > 0.0 {
            self.pause(60.0);
            self.purchase(plan, price);
        }
        for _ in 0..self.random.below(4) {
            self.pause(15.0);
            self.feature("/app/dashboard");
        }
    }

    fn member(&mut self, account: &Account) {
        let started_ms = self.start();
        if self.random.chance(0.4) {
            self.emit("login", None, Properties { plan: Some(account.plan), ..Properties::default() });
            self.pause(1.5);
        }
        let mut page = "/app/dashboard";
        loop {
            self.page(page);
            while self.random.chance(0.48) {
                self.pause(14.0);
                self.feature(page);
            }
            self.click(page, 0.08);
            if self.random.chance(0.12) {
                self.pause(7.0);
                self.search(page);
            }
            if self.random.chance(0.02) {
                self.pause(20.0);
                self.emit("invite_sent", None, Properties { page: Some(page), ..Properties::default() });
            }
            if page == "/app/billing" && account.price > 0.0 && self.random.chance(0.55) {
                self.pause(40.0);
                self.purchase(account.plan, account.price);
            }
            self.pause(20.0);
            if self.is_over() || self.random.chance(0.27) {
                break;
            }
            page = self.random.weighted(&APP_PAGES).unwrap_or("/app/dashboard");
        }
        self.end(started_ms, 0.6);
    }

    fn script(&mut self, account: &Account) {
        self.start();
        for _ in 0..2 + self.random.below(8) {
            let kilobytes = (40.0 * (0.9 * self.random.normal()).exp() * 10.0).round() / 10.0;
            self.emit("api_call", Some(kilobytes), Properties { plan: Some(account.plan), ..Properties::default() });
            self.pause(30.0);
        }
    }

    fn click(&mut self, page: &'static str, chance: f64) {
        if self.random.chance(chance) {
            self.pause(6.0);
            let button = self.random.weighted(&BUTTONS);
            self.emit("button_click", None, Properties { page: Some(page), button, ..Properties::default() });
        }
    }

    fn feature(&mut self, page: &'static str) {
        let feature = self.random.weighted(&FEATURES);
        let seconds = (8.0 * (0.8 * self.random.normal()).exp() * 10.0).round() / 10.0;
        self.emit("feature_used", Some(seconds), Properties { page: Some(page), feature, ..Properties::default() });
    }

    fn search(&mut self, page: &'static str) {
        let query = self.random.weighted(&SEARCHES);
        self.emit("search", None, Properties { page: Some(page), query, ..Properties::default() });
    }

    fn purchase(&mut self, plan: &'static str, price: f64) {
        // A year at a time is ten months' price.
        let value = if self.random.chance(0.25) { price * 10.0 } else { price };
        self.emit("purchase", Some(value), Properties { plan: Some(plan), page: Some("/app/billing"), ..Properties::default() });
    }
}
