//! The one font that texts of drawings are set in, whatever they ask for.

use std::fs::File;
use std::io::Read;
use std::sync::{Arc, OnceLock};

use resvg::usvg::fontdb::Database;

/// Where distributions have a font of wide coverage; the first that is there is taken.
const CANDIDATES: [&str; 9] = [
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/liberation-sans-fonts/LiberationSans-Regular.ttf",
    "/usr/share/fonts/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
    "/usr/share/fonts/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/truetype/freefont/FreeSans.ttf",
];

/// Larger ones are of scripts that need more than one font anyway.
const MAX_FONT_BYTES: u64 = 8 * 1024 * 1024;

static FONTS: OnceLock<Arc<Database>> = OnceLock::new();

/// Loads the font from the disk, for all drawings of this process. Where there is none, texts are left
/// out. To be called before the process gives up the file system; nothing is loaded later.
pub(in crate::thumbnail) fn load_fallback_font() {
    FONTS.get_or_init(|| {
        let mut fonts = Database::new();
        if let Some(font) = CANDIDATES.iter().find_map(|path| read(path)) {
            fonts.load_font_data(font);
        }
        Arc::new(fonts)
    });
}

/// Returns the font that was loaded, if any was.
pub(super) fn loaded() -> Arc<Database> {
    FONTS.get().cloned().unwrap_or_default()
}

fn read(path: &str) -> Option<Vec<u8>> {
    let mut font = Vec::new();
    File::open(path).ok()?.take(MAX_FONT_BYTES + 1).read_to_end(&mut font).ok()?;
    (font.len() as u64 <= MAX_FONT_BYTES).then_some(font)
}
