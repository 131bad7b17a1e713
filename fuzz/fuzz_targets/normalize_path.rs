//! The normal form of any bytes is normal, safe, and stable; what is refused is refused with and without scratch memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_route::normalize::{Backslash, EncodedSlash, InvalidPath, Normalized, Options, normalize};
use rhumb_route::path::PathMatch;

fn run(path: &[u8], options: Options) -> Result<Vec<u8>, InvalidPath> {
    let mut out = b"left over".to_vec();
    Ok(match normalize(path, options, &mut out)? {
        Normalized::Same => path.to_vec(),
        Normalized::Rewritten => out,
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, path)) = data.split_first() else { return };
    let options = Options {
        encoded_slash: [EncodedSlash::Keep, EncodedSlash::Refuse, EncodedSlash::Decode]
            [usize::from(choice % 3)],
        backslash: [Backslash::Refuse, Backslash::Keep, Backslash::Slash][usize::from(choice / 3 % 3)],
        merge_slashes: choice / 9 % 2 == 1,
    };
    let Ok(normal) = run(path, options) else { return };
    assert_eq!(run(&normal, options), Ok(normal.clone()), "stable");
    assert!(normal.starts_with(b"/") && normal.len() <= 3 * path.len());
    assert!(normal.iter().all(|b| b.is_ascii_graphic() && !b"\\#?\"<>[]^{}`|".contains(b)));
    assert!(!options.merge_slashes || !normal.windows(2).any(|w| w == b"//"));

    // However a server decodes once and strips parameters, it does not find a dot segment.
    let mut decoded = Vec::new();
    let mut rest = &normal[..];
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(&rest[..2]).expect("hexadecimal digits");
        assert!(!digits.bytes().any(|b| b.is_ascii_lowercase()));
        let byte = u8::from_str_radix(digits, 16).expect("hexadecimal digits");
        assert!(!byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte) && byte > 0x1f && byte != 0x7f);
        decoded.push(byte);
        rest = &rest[2..];
    }
    for segment in decoded.split(|b| matches!(b, b'/' | b'\\')) {
        let name = segment.split(|&b| b == b';').next().unwrap_or_default();
        assert!(name != b"." && name != b"..", "{}", String::from_utf8_lossy(&normal));
    }

    // A path in normal form, written into a route, matches itself.
    if let Ok(text) = std::str::from_utf8(&normal)
        && let Ok(exact) = PathMatch::exact(text)
    {
        assert!(exact.matches(&normal));
        assert!(PathMatch::prefix(text).is_ok_and(|prefix| prefix.matches(&normal)));
    }
});
