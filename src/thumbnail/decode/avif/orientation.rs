//! How a picture is to be turned, from the properties of its item.

use image::metadata::Orientation;

use super::boxes::Property;

/// Returns what all turns and mirrorings come to, in their order.
pub(super) fn of(properties: &[Property]) -> Orientation {
    // First mirrored left to right or not, then turned clockwise by so many quarters.
    let (mut is_mirrored, mut quarters) = (false, 0_u8);
    for property in properties {
        match *property {
            Property::Rotation(anti_clockwise) => quarters += 4 - anti_clockwise,
            // Mirroring turns the other way round all that came before it.
            Property::Mirror { is_left_right } => {
                is_mirrored = !is_mirrored;
                let half = if is_left_right { 0 } else { 2 };
                quarters = (4 - quarters % 4) + half;
            }
            _ => {}
        }
        quarters %= 4;
    }
    match (is_mirrored, quarters) {
        (false, 0) => Orientation::NoTransforms,
        (false, 1) => Orientation::Rotate90,
        (false, 2) => Orientation::Rotate180,
        (false, _) => Orientation::Rotate270,
        (true, 0) => Orientation::FlipHorizontal,
        (true, 1) => Orientation::Rotate270FlipH,
        (true, 2) => Orientation::FlipVertical,
        (true, _) => Orientation::Rotate90FlipH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::samples::quarters;
    use image::DynamicImage;

    /// What the properties say, step by step.
    fn transformed(mut image: DynamicImage, properties: &[Property]) -> DynamicImage {
        for property in properties {
            image = match property {
                Property::Rotation(1) => image.rotate270(),
                Property::Rotation(2) => image.rotate180(),
                Property::Rotation(3) => image.rotate90(),
                Property::Mirror { is_left_right: true } => image.fliph(),
                Property::Mirror { is_left_right: false } => image.flipv(),
                _ => image,
            };
        }
        image
    }

    #[test]
    fn all_orders_of_turns_and_mirrorings_come_to_the_same_as_one_by_one() {
        let steps = [
            Property::Ignored,
            Property::Rotation(0),
            Property::Rotation(1),
            Property::Rotation(2),
            Property::Rotation(3),
            Property::Mirror { is_left_right: true },
            Property::Mirror { is_left_right: false },
        ];
        for first in &steps {
            for second in &steps {
                for third in &steps {
                    let properties = [first.clone(), second.clone(), third.clone()];
                    let mut at_once = quarters(4, 2);
                    at_once.apply_orientation(of(&properties));
                    let one_by_one = transformed(quarters(4, 2), &properties);
                    assert_eq!(at_once, one_by_one, "{properties:?}");
                }
            }
        }
    }
}
