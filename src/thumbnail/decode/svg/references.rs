//! Which elements of a document refer to which others.

use std::collections::HashMap;

use resvg::usvg::roxmltree::{Document, Node};

use super::too_large;
use crate::thumbnail::error::ThumbnailError;

/// Returns the names that an element's attributes refer to.
pub(super) fn referenced_ids<'d>(node: Node<'d, 'd>) -> impl Iterator<Item = &'d str> {
    node.attributes().flat_map(|attribute| {
        let link = (attribute.name() == "href").then(|| attribute.value().trim());
        link.and_then(|value| value.strip_prefix('#')).into_iter().chain(in_css(attribute.value()))
    })
}

/// Refuses style sheets that refer to very many elements: they could chain them as deep as attributes
/// must not. Gradients have nothing in them, so any number of them is fine.
///
/// # Errors
///
/// `TooLarge`.
pub(super) fn check_style_sheets(
    document: &Document,
    by_id: &HashMap<&str, Node>,
    most: u32,
) -> Result<(), ThumbnailError> {
    let is_style = |node: &Node| node.is_element() && node.tag_name().name() == "style";
    let has_content =
        |id: &&str| by_id.get(id).is_some_and(|node| !node.tag_name().name().ends_with("Gradient"));
    let texts = document.descendants().filter(is_style).flat_map(|node| node.children());
    let texts = texts.filter_map(|node| node.text());
    if texts.flat_map(in_css).filter(has_content).count() > most as usize {
        return Err(too_large("a style sheet with too many references"));
    }
    Ok(())
}

/// Returns the names in all `url(#name)` of a style.
fn in_css(style: &str) -> impl Iterator<Item = &str> {
    style.split("url(").skip(1).filter_map(|rest| {
        let (target, _) = rest.split_once(')')?;
        let target = target.trim().trim_matches(['\'', '"']).trim();
        target.strip_prefix('#')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_spelling() {
        let found: Vec<_> =
            in_css("fill:url(#a);mask: url( '#b' ) none;x:url(\"#c\");y:url(http://d#e)").collect();
        assert_eq!(found, ["a", "b", "c"]);
        assert_eq!(in_css("url(#a").count(), 0);
    }
}
