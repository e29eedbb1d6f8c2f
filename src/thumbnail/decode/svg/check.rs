//! What a document must not have, found before anything is made of it: scripts, and structures that are
//! small as a text and endless when they are drawn.

use std::collections::HashMap;

use resvg::usvg::roxmltree::{Document, Node, NodeId};

use super::references::{self, referenced_ids};
use super::{damaged, too_large};
use crate::thumbnail::error::ThumbnailError;

/// The most elements, texts and comments of a document.
pub(super) const MAX_NODES: u32 = 200_000;

/// How many elements there may be when every reference is replaced by what it refers to.
const MAX_DRAWN: u64 = 500_000;

/// How deep elements may be nested, with every reference followed. The program draws by recursion.
const MAX_DEPTH: u32 = 100;

/// Refuses what must not be drawn, or could not be.
///
/// # Errors
///
/// `Damaged` for a script, `TooLarge` for too much or too deep.
pub(super) fn check(document: &Document) -> Result<(), ThumbnailError> {
    let mut by_id = HashMap::new();
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        if name == "script" {
            return Err(damaged("a document with a script"));
        }
        if let Some(id) = node.attribute("id") {
            by_id.entry(id).or_insert(node);
        }
    }
    references::check_style_sheets(document, &by_id, MAX_DEPTH)?;
    let mut walk = Walk { by_id, known: HashMap::new() };
    walk.measure(document.root_element(), 0)?;
    Ok(())
}

/// How much there is to draw below an element.
#[derive(Debug, Clone, Copy)]
struct Extent {
    depth: u32,
    elements: u64,
}

struct Walk<'d> {
    by_id: HashMap<&'d str, Node<'d, 'd>>,
    /// Nothing for elements that are being measured: who refers to itself is not drawn.
    known: HashMap<NodeId, Option<Extent>>,
}

impl<'d> Walk<'d> {
    /// Follows children and references alike. `level` bounds the recursion, here and later.
    fn measure(&mut self, node: Node<'d, 'd>, level: u32) -> Result<Extent, ThumbnailError> {
        if level > MAX_DEPTH {
            return Err(too_large("nested too deep"));
        }
        match self.known.get(&node.id()) {
            Some(Some(extent)) if level + extent.depth > MAX_DEPTH => {
                return Err(too_large("nested too deep"));
            }
            Some(Some(extent)) => return Ok(*extent),
            Some(None) => return Ok(Extent { depth: 0, elements: 0 }),
            None => self.known.insert(node.id(), None),
        };
        let mut all = Extent { depth: 0, elements: 1 };
        let referenced: Vec<_> =
            referenced_ids(node).filter_map(|id| self.by_id.get(id).copied()).collect();
        for next in node.children().filter(Node::is_element).chain(referenced) {
            let below = self.measure(next, level + 1)?;
            all.depth = all.depth.max(below.depth + 1);
            all.elements = all.elements.saturating_add(below.elements);
        }
        if all.elements > MAX_DRAWN {
            return Err(too_large("too much to draw"));
        }
        self.known.insert(node.id(), Some(all));
        Ok(all)
    }
}
