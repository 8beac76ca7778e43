//! What the sample product is made of: where its visitors are, what they look at and use.

/// Country, share of visitors, hours ahead of UTC.
pub const COUNTRIES: [(&str, f64, f64); 36] = [
    ("US", 30.0, -6.0),
    ("GB", 9.0, 0.0),
    ("DE", 8.0, 1.0),
    ("IN", 7.5, 5.5),
    ("FR", 5.5, 1.0),
    ("BR", 5.0, -3.0),
    ("CA", 4.5, -6.0),
    ("NL", 3.2, 1.0),
    ("AU", 3.0, 10.0),
    ("JP", 2.8, 9.0),
    ("ES", 2.4, 1.0),
    ("SE", 2.0, 1.0),
    ("PL", 1.8, 1.0),
    ("IT", 1.7, 1.0),
    ("MX", 1.6, -6.0),
    ("CH", 1.3, 1.0),
    ("SG", 1.2, 8.0),
    ("KR", 1.1, 9.0),
    ("DK", 0.9, 1.0),
    ("NO", 0.9, 1.0),
    ("AR", 0.8, -3.0),
    ("BE", 0.8, 1.0),
    ("AT", 0.7, 1.0),
    ("FI", 0.7, 2.0),
    ("IE", 0.7, 0.0),
    ("ZA", 0.6, 2.0),
    ("PT", 0.6, 0.0),
    ("TR", 0.5, 3.0),
    ("ID", 0.5, 7.0),
    ("CZ", 0.5, 1.0),
    ("UA", 0.4, 2.0),
    ("NG", 0.4, 1.0),
    ("NP", 0.3, 5.75),
    ("NZ", 0.3, 12.0),
    ("CL", 0.3, -4.0),
    ("IS", 0.2, 0.0),
];

/// Device and its share.
pub const DEVICES: [(&str, f64); 4] = [("desktop", 52.0), ("mobile", 39.0), ("tablet", 7.0), ("tv", 2.0)];

/// How a session came to the product, and its share. `api` sessions are scripts: no pages.
pub const SOURCES: [(&str, f64); 3] = [("web", 68.0), ("mobile", 27.0), ("api", 5.0)];

pub const REFERRERS: [(&str, f64); 7] =
    [("google", 38.0), ("direct", 27.0), ("newsletter", 11.0), ("github", 9.0), ("linkedin", 7.0), ("partner", 5.0), ("hacker_news", 3.0)];

/// Pages that a visitor without an account sees.
pub const PUBLIC_PAGES: [(&str, f64); 7] =
    [("/", 34.0), ("/pricing", 20.0), ("/docs", 17.0), ("/blog", 14.0), ("/features", 9.0), ("/customers", 4.0), ("/changelog", 2.0)];

/// Pages behind the login.
pub const APP_PAGES: [(&str, f64); 7] = [
    ("/app/dashboard", 40.0),
    ("/app/reports", 22.0),
    ("/app/explore", 16.0),
    ("/app/team", 8.0),
    ("/app/settings", 7.0),
    ("/app/integrations", 5.0),
    ("/app/billing", 2.0),
];

pub const FEATURES: [(&str, f64); 14] = [
    ("dashboard_view", 26.0),
    ("filter", 17.0),
    ("date_range", 13.0),
    ("report_builder", 9.0),
    ("export_csv", 7.5),
    ("share_link", 6.0),
    ("segment_builder", 5.0),
    ("alert_create", 4.0),
    ("comment", 3.5),
    ("funnel_view", 3.0),
    ("api_key_create", 2.0),
    ("sql_editor", 2.0),
    ("dark_mode", 1.2),
    ("webhook_create", 0.8),
];

pub const BUTTONS: [(&str, f64); 6] = [
    ("cta_start_trial", 28.0),
    ("nav_menu", 24.0),
    ("show_more", 18.0),
    ("play_demo", 14.0),
    ("copy_snippet", 10.0),
    ("contact_sales", 6.0),
];

pub const SEARCHES: [(&str, f64); 8] = [
    ("retention", 22.0),
    ("funnel", 18.0),
    ("pricing", 15.0),
    ("api", 13.0),
    ("export", 11.0),
    ("slack", 9.0),
    ("grafana", 7.0),
    ("münchen büro", 5.0),
];

pub const ERRORS: [(&str, f64); 5] =
    [("timeout", 38.0), ("http_500", 24.0), ("validation", 20.0), ("not_found", 12.0), ("payment_declined", 6.0)];

/// Plan, its share of accounts, price per month.
pub const PLANS: [(&str, f64, f64); 4] = [("free", 61.0, 0.0), ("starter", 24.0, 19.0), ("team", 12.0, 79.0), ("business", 3.0, 249.0)];

/// Accounts of a country with share 1.
pub const ACCOUNTS_PER_SHARE: f64 = 500.0;
