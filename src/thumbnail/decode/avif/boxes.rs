//! What the `meta` box of a file of pictures says (ISO/IEC 23008-12), as much of it as AVIF needs.
//!
//! Everything is bounded by the bytes of the box itself, which were bounded before they were read; a
//! length that leads out of them is damage.

use std::rc::Rc;

use crate::thumbnail::error::ThumbnailError;

/// The most items, references, or extents that are looked at; pictures in tiles have tens.
const MAX_ENTRIES: usize = 1024;

/// The number of an item within its file.
pub(super) type ItemId = u32;

/// A list of all items, and how they belong together.
#[derive(Debug, Default)]
pub(super) struct Meta {
    /// The item that is the picture.
    pub(super) primary: ItemId,
    pub(super) items: Vec<Item>,
    pub(super) references: Vec<Reference>,
    /// The bytes of small items, inside of the box.
    pub(super) inline: Vec<u8>,
}

/// One item: a coded picture, or a way to put others together.
#[derive(Debug, Default)]
pub(super) struct Item {
    pub(super) id: ItemId,
    /// `av01` for a coded picture, `grid` for tiles.
    pub(super) kind: [u8; 4],
    pub(super) is_inline: bool,
    pub(super) extents: Vec<Extent>,
    /// In the order in which they apply.
    pub(super) properties: Vec<Property>,
}

/// A piece of the bytes of an item. A length of zero means "up to the end".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// One item refers to others.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) kind: [u8; 4],
    pub(super) from: ItemId,
    pub(super) to: Vec<ItemId>,
}

/// What is said of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Property {
    Size {
        width: u32,
        height: u32,
    },
    /// Code points for colours (ITU-T H.273).
    Nclx {
        primaries: u16,
        transfer: u16,
        matrix: u16,
        is_full_range: bool,
    },
    /// Shared: all tiles of a picture may have the same.
    Icc(Rc<[u8]>),
    /// How often it is turned by a quarter, anti-clockwise.
    Rotation(u8),
    /// Whether left and right are exchanged, or else top and bottom.
    Mirror {
        is_left_right: bool,
    },
    /// What an auxiliary picture is for.
    Auxiliary(Rc<[u8]>),
    /// Known, and of no use here.
    Ignored,
    Unknown,
}

impl Meta {
    /// Reads the content of a `meta` box.
    ///
    /// # Errors
    ///
    /// `Damaged` if it makes no sense, `Unsupported` if an item has a property that must not be ignored
    /// and is not known.
    pub(super) fn parse(content: &[u8]) -> Result<Self, ThumbnailError> {
        let mut meta = Self::default();
        let mut input = Input(content);
        input.full_box()?;
        let mut properties = None;
        let mut locations = None;
        while let Some((name, body)) = input.next_box()? {
            match &name {
                b"pitm" => meta.primary = parse_primary(body)?,
                b"iinf" => meta.items = parse_items(body)?,
                b"iref" => meta.references = parse_references(body)?,
                b"idat" => meta.inline = body.0.to_vec(),
                b"iloc" => locations = Some(body),
                b"iprp" => properties = Some(body),
                _ => {}
            }
        }
        if let Some(locations) = locations {
            meta.parse_locations(locations)?;
        }
        if let Some(properties) = properties {
            meta.parse_properties(properties)?;
        }
        Ok(meta)
    }

    /// Returns an item by its number.
    pub(super) fn item(&self, id: ItemId) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }

    fn item_mut(&mut self, id: ItemId) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.id == id)
    }

    /// Returns what an item refers to in a given way.
    pub(super) fn references_from(&self, id: ItemId, kind: &[u8; 4]) -> &[ItemId] {
        let is_it = |reference: &&Reference| reference.from == id && reference.kind == *kind;
        self.references.iter().find(is_it).map_or(&[], |reference| &reference.to)
    }

    /// `iloc`: where the bytes of each item are.
    fn parse_locations(&mut self, mut input: Input) -> Result<(), ThumbnailError> {
        let version = input.full_box()?;
        let [sizes, more_sizes] = input.array()?;
        let (offset_size, length_size) = (sizes >> 4, sizes & 0xf);
        let (base_size, index_size) = (more_sizes >> 4, more_sizes & 0xf);
        let mut budget = MAX_ENTRIES;
        for _ in 0..input.count(version >= 2)? {
            let id = input.id(version >= 2)?;
            let method = if version >= 1 { input.u16()? & 0xf } else { 0 };
            let _data_reference = input.u16()?;
            let base = input.sized(base_size)?;
            let count = usize::from(input.u16()?);
            budget = budget.checked_sub(count).ok_or_else(|| damaged("too many extents"))?;
            let mut extents = Vec::with_capacity(count);
            for _ in 0..count {
                if version >= 1 {
                    input.sized(index_size)?;
                }
                let offset = base.checked_add(input.sized(offset_size)?);
                let offset = offset.ok_or_else(|| damaged("an offset beyond all files"))?;
                extents.push(Extent { offset, length: input.sized(length_size)? });
            }
            if let Some(item) = self.item_mut(id) {
                // Zero is the file, one is the box `idat`; others are not allowed here.
                if method <= 1 {
                    (item.is_inline, item.extents) = (method == 1, extents);
                }
            }
        }
        Ok(())
    }

    /// `iprp`: a list of properties, and which item has which of them.
    fn parse_properties(&mut self, mut input: Input) -> Result<(), ThumbnailError> {
        let mut properties = Vec::new();
        while let Some((name, mut body)) = input.next_box()? {
            match &name {
                b"ipco" => {
                    while let Some((name, body)) = body.next_box()? {
                        if properties.len() == MAX_ENTRIES {
                            return Err(damaged("too many properties"));
                        }
                        properties.push(parse_property(&name, body)?);
                    }
                }
                b"ipma" => self.parse_associations(body, &properties)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn parse_associations(
        &mut self,
        mut input: Input,
        properties: &[Property],
    ) -> Result<(), ThumbnailError> {
        let [version, .., flags] = input.array::<4>()?;
        let is_wide = flags & 1 == 1;
        let mut budget = MAX_ENTRIES;
        for _ in 0..input.u32()? {
            let id = input.id(version >= 1)?;
            for _ in 0..input.u8()? {
                let (is_essential, index) = if is_wide {
                    let both = input.u16()?;
                    (both >> 15 == 1, usize::from(both & 0x7fff))
                } else {
                    let both = input.u8()?;
                    (both >> 7 == 1, usize::from(both & 0x7f))
                };
                budget = budget.checked_sub(1).ok_or_else(|| damaged("too many properties"))?;
                // Properties are counted from one; zero is none.
                let Some(property) = index.checked_sub(1).and_then(|at| properties.get(at)) else {
                    continue;
                };
                if is_essential && *property == Property::Unknown && id == self.primary {
                    return Err(ThumbnailError::Unsupported);
                }
                if let Some(item) = self.item_mut(id) {
                    item.properties.push(property.clone());
                }
            }
        }
        Ok(())
    }
}

impl Item {
    /// Returns the size that is said of the item.
    pub(super) fn size(&self) -> Option<(u32, u32)> {
        self.properties.iter().find_map(|property| match property {
            Property::Size { width, height } => Some((*width, *height)),
            _ => None,
        })
    }
}

fn parse_primary(mut input: Input) -> Result<ItemId, ThumbnailError> {
    let version = input.full_box()?;
    input.id(version >= 1)
}

/// `iinf`: the number and the kind of each item.
fn parse_items(mut input: Input) -> Result<Vec<Item>, ThumbnailError> {
    let version = input.full_box()?;
    input.count(version >= 1)?;
    let mut items = Vec::new();
    while let Some((name, mut body)) = input.next_box()? {
        if items.len() == MAX_ENTRIES {
            return Err(damaged("too many items"));
        }
        let version = body.full_box()?;
        // Older versions are for other kinds of files.
        if &name == b"infe" && version >= 2 {
            let id = body.id(version >= 3)?;
            let _protection = body.u16()?;
            items.push(Item { id, kind: body.array()?, ..Item::default() });
        }
    }
    Ok(items)
}

fn parse_references(mut input: Input) -> Result<Vec<Reference>, ThumbnailError> {
    let version = input.full_box()?;
    let mut references = Vec::new();
    let mut budget = MAX_ENTRIES;
    while let Some((kind, mut body)) = input.next_box()? {
        let from = body.id(version >= 1)?;
        let count = usize::from(body.u16()?);
        budget = budget.checked_sub(count + 1).ok_or_else(|| damaged("too many references"))?;
        let to = (0..count).map(|_| body.id(version >= 1)).collect::<Result<_, _>>()?;
        references.push(Reference { kind, from, to });
    }
    Ok(references)
}

fn parse_property(name: &[u8; 4], mut body: Input) -> Result<Property, ThumbnailError> {
    Ok(match name {
        b"ispe" => {
            body.full_box()?;
            Property::Size { width: body.u32()?, height: body.u32()? }
        }
        b"colr" => match &body.array()? {
            b"nclx" => Property::Nclx {
                primaries: body.u16()?,
                transfer: body.u16()?,
                matrix: body.u16()?,
                is_full_range: body.u8()? >> 7 == 1,
            },
            b"prof" | b"rICC" => Property::Icc(body.0.into()),
            _ => Property::Ignored,
        },
        b"irot" => Property::Rotation(body.u8()? & 3),
        b"imir" => Property::Mirror { is_left_right: body.u8()? & 1 == 1 },
        b"auxC" => {
            body.full_box()?;
            let end = body.0.iter().position(|&byte| byte == 0).unwrap_or(body.0.len());
            Property::Auxiliary(body.0[..end].into())
        }
        // The decoder finds out by itself; of several layers the best is taken. A part that is to be
        // cut out (`clap`) is left in.
        b"av1C" | b"pixi" | b"pasp" | b"clap" | b"a1op" | b"a1lx" | b"lsel" | b"clli" | b"mdcv" => {
            Property::Ignored
        }
        _ => Property::Unknown,
    })
}

/// The rest of some bytes.
#[derive(Clone, Copy)]
pub(super) struct Input<'b>(pub(super) &'b [u8]);

impl<'b> Input<'b> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ThumbnailError> {
        let (array, rest) = self.0.split_first_chunk().ok_or_else(ends)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ThumbnailError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ThumbnailError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ThumbnailError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads a number of a size that the box itself has said: 0, 4 or 8 bytes.
    fn sized(&mut self, size: u8) -> Result<u64, ThumbnailError> {
        match size {
            0 => Ok(0),
            4 => self.u32().map(u64::from),
            8 => self.array().map(u64::from_be_bytes),
            _ => Err(damaged("a number of an odd size")),
        }
    }

    fn id(&mut self, is_wide: bool) -> Result<ItemId, ThumbnailError> {
        if is_wide { self.u32() } else { self.u16().map(u32::from) }
    }

    /// Reads how many there are; more than are looked at is damage.
    fn count(&mut self, is_wide: bool) -> Result<u32, ThumbnailError> {
        let count = self.id(is_wide)?;
        let is_bounded = usize::try_from(count).is_ok_and(|count| count <= MAX_ENTRIES);
        if is_bounded { Ok(count) } else { Err(damaged("too many items")) }
    }

    /// Reads version and flags, and returns the version.
    fn full_box(&mut self) -> Result<u8, ThumbnailError> {
        self.array::<4>().map(|[version, ..]| version)
    }

    /// Returns the name of the next box and what is in it.
    fn next_box(&mut self) -> Result<Option<([u8; 4], Self)>, ThumbnailError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let all = self.0;
        let length = self.u32()?;
        let name = self.array()?;
        let end = match length {
            0 => all.len() as u64,
            1 => self.array().map(u64::from_be_bytes)?,
            length => length.into(),
        };
        let header = all.len() - self.0.len();
        let body = usize::try_from(end).ok().and_then(|end| all.get(header..end));
        let body = body.ok_or_else(|| damaged("a box beyond its surroundings"))?;
        self.0 = &all[header + body.len()..];
        Ok(Some((name, Input(body))))
    }
}

pub(super) fn damaged(why: &str) -> ThumbnailError {
    ThumbnailError::Damaged(why.to_owned())
}

fn ends() -> ThumbnailError {
    damaged("a box ends too early")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let length = 8 + body.len() as u32;
        [&length.to_be_bytes()[..], name, body].concat()
    }

    fn meta(boxes: &[Vec<u8>]) -> Result<Meta, ThumbnailError> {
        Meta::parse(&[vec![0; 4], boxes.concat()].concat())
    }

    fn one_item(property: Vec<u8>, is_essential: bool) -> Result<Meta, ThumbnailError> {
        let item = boxed(b"infe", &[&[2, 0, 0, 0, 0, 7, 0, 0][..], b"av01\0"].concat());
        let association = [0, 0, 0, 0, 0, 0, 0, 1, 0, 7, 1, u8::from(is_essential) << 7 | 1];
        meta(&[
            boxed(b"pitm", &[0, 0, 0, 0, 0, 7]),
            boxed(b"iinf", &[&[0, 0, 0, 0, 0, 1][..], &item].concat()),
            boxed(b"iprp", &[boxed(b"ipco", &property), boxed(b"ipma", &association)].concat()),
        ])
    }

    #[test]
    fn boxes_that_lead_out_of_their_surroundings_are_damage() {
        for length in [1_u32, 4, 7, 13, u32::MAX] {
            let mut odd = boxed(b"free", &[0; 4]);
            odd[..4].copy_from_slice(&length.to_be_bytes());
            assert!(matches!(meta(&[odd]), Err(ThumbnailError::Damaged(_))), "{length}");
        }
    }

    #[test]
    fn a_property_that_must_not_be_ignored_and_is_not_known_is_unsupported() {
        assert!(matches!(one_item(boxed(b"what", b""), true), Err(ThumbnailError::Unsupported)));
        assert!(one_item(boxed(b"what", b""), false).is_ok());
    }

    #[test]
    fn properties_are_found_at_their_item() {
        let size = boxed(b"ispe", &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 4]);
        let meta = one_item(size, true).expect("it is whole");
        assert_eq!(meta.item(meta.primary).and_then(Item::size), Some((9, 4)));
        let turned = one_item(boxed(b"irot", &[3]), true).expect("it is whole");
        assert_eq!(turned.items[0].properties, [Property::Rotation(3)]);
    }

    #[test]
    fn locations_are_added_to_their_base() {
        let item = boxed(b"infe", &[&[2, 0, 0, 0, 0, 7, 0, 0][..], b"av01\0"].concat());
        let location = [
            &[1, 0, 0, 0, 0x44, 0x40, 0, 1, 0, 7, 0, 1, 0, 0][..],
            &[0, 0, 1, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 9],
        ];
        let meta = meta(&[
            boxed(b"iloc", &location.concat()),
            boxed(b"iinf", &[&[0, 0, 0, 0, 0, 1][..], &item].concat()),
        ]);
        let item = &meta.expect("it is whole").items[0];
        assert!(item.is_inline);
        assert_eq!(item.extents, [Extent { offset: 0x105, length: 9 }]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Meta::parse(&body);
            for name in [b"iloc", b"iinf", b"iref", b"iprp", b"pitm"] {
                let _ = meta(&[boxed(name, &body)]);
            }
        }
    }
}
