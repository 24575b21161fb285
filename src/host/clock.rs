//! The time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in UTC to the second, as RFC 3339: `2026-11-23T19:04:05Z`.
pub fn now() -> String {
    rfc3339(seconds())
}

/// Now, in seconds since 1970-01-01T00:00:00Z; 0 where the clock stands before that.
pub fn seconds() -> u64 {
    precise().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Returns the time that the kernel gives to files now. It steps by 1 to 10 ms, so that files of one step have the same.
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

/// Waits, for 10 ms at most, until the time of files is later than that of every file that was changed before the call, and
/// returns it.
pub fn file_time_after() -> SystemTime {
    const STEP_MAX: Duration = Duration::from_millis(20);
    let before = precise();
    loop {
        let now = file_time();
        // A clock that was set back meanwhile is not waited for.
        if now > before || precise().duration_since(before).map_or(true, |waited| waited > STEP_MAX) {
            return now;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Returns the time to the nanosecond.
#[expect(clippy::disallowed_methods, reason = "reads the clock; no plan depends on it")]
pub(crate) fn precise() -> SystemTime {
    SystemTime::now()
}

/// `seconds` since 1970-01-01T00:00:00Z, as [`now`] writes it. The calendar is Howard Hinnant's `civil_from_days`.
pub fn rfc3339(seconds: u64) -> String {
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(super::rfc3339(seconds), text);
        }
    }
}
