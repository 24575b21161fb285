//! Current time, and its formats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the current time, in UTC to the second, as RFC 3339: `2026-11-23T19:04:05Z`.
pub fn now() -> String {
    rfc3339(seconds())
}

/// Returns the seconds since 1970-01-01T00:00:00Z, or 0 if the clock shows an earlier time.
pub fn seconds() -> u64 {
    precise().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Returns the time that the kernel gives to files now. This time steps by 1 to 10 ms, so files of one step have equal
/// times.
#[cfg(target_os = "linux")]
pub fn file_time() -> SystemTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = Duration::from_secs(now.tv_sec.try_into().unwrap_or_default());
    UNIX_EPOCH + seconds + Duration::from_nanos(now.tv_nsec.try_into().unwrap_or_default())
}

/// Returns the time that the kernel gives to files now.
#[cfg(not(target_os = "linux"))]
pub fn file_time() -> SystemTime {
    precise()
}

/// Waits until files get a later time than every file that was changed before the call, and returns the later time.
///
/// Waits for 10 ms at most.
pub fn file_time_after() -> SystemTime {
    const STEP_MAX: Duration = Duration::from_millis(20);
    let before = precise();
    loop {
        let now = file_time();
        // If the clock was set back meanwhile, do not wait for the old time.
        if now > before || precise().duration_since(before).map_or(true, |waited| waited > STEP_MAX) {
            return now;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Returns the current time to the nanosecond.
#[expect(clippy::disallowed_methods, reason = "reads the clock; no plan depends on it")]
pub(crate) fn precise() -> SystemTime {
    SystemTime::now()
}

/// Returns `seconds` since 1970-01-01T00:00:00Z in the format of [`now`]. Times after the year 9999 become
/// that year's last second.
pub fn rfc3339(seconds: u64) -> String {
    const LAST: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))).to_string()
}

/// Returns the seconds since 1970 of a time in the format of [`now`]; `None` for another text or an earlier time.
pub fn parse(text: &str) -> Option<u64> {
    Some(humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_times_are_formatted() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(super::rfc3339(seconds), text);
        }
    }
}
