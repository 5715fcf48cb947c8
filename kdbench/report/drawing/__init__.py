"""What all figures share: `style` has their looks, `layout` where panels go, `svg` makes them part of a page."""
