//! What a page of metrics says of moves.

/// Moves and their pauses so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// How many connections have moved.
    pub moved: u64,
    /// How many moves were put off, or ended in a Close.
    pub otherwise: u64,
    /// A pause that none was longer than, in seconds: the bound of the highest bucket that holds any.
    pub pause: f64,
}

impl Moved {
    /// Reads the page.
    #[must_use]
    pub fn read(page: &str) -> Self {
        let mut all = Self::default();
        let mut below = -1.0;
        for line in page.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            if series.starts_with("ws_moves_total{") {
                let count =
                    if series.contains("result=\"moved\"") { &mut all.moved } else { &mut all.otherwise };
                *count += value as u64;
            } else if let Some(labels) = series.strip_prefix("ws_move_pause_seconds_bucket{")
                && let Some(bound) = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next())
            {
                if value > below {
                    all.pause = bound.parse().unwrap_or(f64::INFINITY);
                }
                below = value.max(below);
            }
        }
        all
    }
}
