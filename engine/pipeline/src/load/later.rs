//! Sections that are read and validated now and take effect with the service.

use croner::parser::{CronParser, Seconds, Year};

use super::walk::{Section, Text, Walk};
use crate::definition::Schedule;
use crate::{suggest, units};

/// What is said of `[schedule]`.
pub(crate) const SCHEDULE: &str = "`[schedule]` takes effect with the service: this run is not repeated by itself";
/// What is said of `[retry]`.
pub(crate) const RETRY: &str = "`[retry]` takes effect with the service: a failed step is not tried again";
/// What is said of `[notify]`.
pub(crate) const NOTIFY: &str = "`[notify]` takes effect with the service: nobody is told";
/// What is said of `incremental`.
pub(crate) const INCREMENTAL: &str = "`incremental` takes effect with the service: steps read all rows, and `replace_interval` replaces the partitions that the result has";

const EVENTS: [&str; 7] = ["success", "failure", "check_failed", "timeout", "late", "recovered", "plan_regressed"];

/// Reads `[schedule]`.
pub(crate) fn schedule(section: &Section<'_, '_>) -> Option<Schedule> {
    let cron = section.required("cron", "e.g. `cron = \"15 2 * * *\"`: every day at 02:15");
    let timezone = section
        .string("timezone")
        .or_else(|| (!section.has("timezone")).then(|| Text { value: "UTC".to_owned(), span: section.span() }));
    section.one_of("catch_up", &[("none", ()), ("latest", ()), ("all", ())]);
    section.one_of("overlap", &[("skip", ()), ("queue", ())]);
    if let Some(text) = &cron
        && let Err(why) = parse_cron(&text.value)
    {
        let message = format!("`cron` cannot be `{}`: {why}", text.value.escape_debug());
        section.bad(
            "bad-cron",
            "cron",
            message,
            "five fields: minute, hour, day of month, month, day of week, e.g. `15 2 * * *`",
        );
    }
    // Any day will do: what is due at all is due in the years after it.
    let never = cron.as_ref().and_then(|text| parse_cron(&text.value).ok()).is_some_and(|cron| {
        let Some(start) = chrono::DateTime::from_timestamp(1_700_000_000, 0) else { return false };
        cron.find_next_occurrence(&start, false).is_err()
    });
    if never {
        let hint = "correct the day and the month: there is no such date";
        section.bad("bad-cron", "cron", "`cron` is never due", hint);
    }
    let zone = timezone?;
    if zone.value.parse::<chrono_tz::Tz>().is_err() {
        let names = chrono_tz::TZ_VARIANTS.iter().map(|z| z.name());
        let hint = suggest::nearest(&zone.value, names)
            .map_or_else(|| "use a name like `Europe/Paris` or `UTC`".to_owned(), |n| format!("did you mean `{n}`?"));
        section.bad("bad-timezone", "timezone", format!("unknown time zone `{}`", zone.value.escape_debug()), hint);
        return None;
    }
    Some(Schedule { cron: cron?.value, timezone: zone.value })
}

/// Reads a cron expression of five fields.
pub(crate) fn parse_cron(text: &str) -> Result<croner::Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| {
        let text = error.to_string();
        let text = text.strip_prefix("Invalid pattern: ").or(text.strip_prefix("Component error: ")).unwrap_or(&text);
        let mut chars = text.trim_end_matches('.').chars();
        chars.next().map(|c| c.to_lowercase().collect::<String>() + chars.as_str()).unwrap_or_default()
    })
}

/// Reads `[retry]`.
pub(crate) fn retry(section: &Section<'_, '_>) {
    section.integer("attempts", 1..=100);
    section.one_of("on", &[("transient", ()), ("any", ()), ("none", ())]);
    let Some(backoff) = section.string("backoff") else { return };
    let (least, most) = backoff.value.split_once("..").unwrap_or((&backoff.value, &backoff.value));
    let hint = "give a range like `30s..10m`";
    match (units::parse_duration(least), units::parse_duration(most)) {
        (Ok(least), Ok(most)) if least > most => {
            section.bad("bad-range", "backoff", format!("`backoff` ends before it begins: `{}`", backoff.value), hint)
        }
        (Ok(_), Ok(_)) => {}
        (Err(why), _) => {
            section.bad("bad-duration", "backoff", format!("`backoff`: `{}` {why}", least.escape_debug()), hint)
        }
        (_, Err(why)) => {
            section.bad("bad-duration", "backoff", format!("`backoff`: `{}` {why}", most.escape_debug()), hint)
        }
    }
}

/// Reads `[notify]`.
pub(crate) fn notify(section: &Section<'_, '_>) {
    for event in section.strings("on").unwrap_or_default() {
        section.choose("`on` in `[notify]`", &event, &EVENTS.map(|e| (e, ())));
    }
    let Some(webhook) = section.string("webhook") else {
        if !section.has("webhook") {
            section.missing("webhook", "give the URL to call: `webhook = \"${HOOK}\"`");
        }
        return;
    };
    let written = section.value("webhook").and_then(|v| v.get_ref().as_str()).unwrap_or_default();
    // An unset variable has been warned of; its text is no URL.
    if written.contains("${") && webhook.value.contains("${") {
        return;
    }
    match url::Url::parse(&webhook.value) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => {}
        // The value may be a secret: it is not repeated.
        _ => {
            section.bad("bad-value", "webhook", "`webhook` is not an `http://` or `https://` URL", "give the whole URL")
        }
    }
}

/// Reads `incremental` of a step; true if it is there.
pub(crate) fn incremental(step: &Section<'_, '_>) -> bool {
    let Some(table) = step.table("incremental") else { return step.has("incremental") };
    let title = format!("`incremental` of {}", step.title());
    let section =
        Section::new(step.walk(), title, table, step.value_span("incremental"), &["column", "interval", "lookback"]);
    section.required("column", "name the time column of the result: `column = \"ts\"`");
    if !section.has("interval") {
        section.missing("interval", "give the length of an interval: `interval = \"1d\"`");
    }
    section.duration("interval");
    section.integer("lookback", 0..=10_000);
    true
}

/// What each kind of later section says, for those that are there.
pub(crate) fn note(walk: &Walk<'_>, span: std::ops::Range<usize>, says: &'static str) -> &'static str {
    walk.report(crate::Diagnostic::note("later", says), span);
    says
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cron() {
        for good in ["15 2 * * *", "*/5 * * * *", "0 0 1 1 0", "0 9 * * MON-FRI", "@daily"] {
            assert!(parse_cron(good).is_ok(), "{good}: {:?}", parse_cron(good));
        }
        for bad in ["", "61 * * * *", "* * * *", "0 0 0 * * *", "a b c d e", "0 0 31 2"] {
            assert!(parse_cron(bad).is_err(), "{bad}");
        }
    }
}
