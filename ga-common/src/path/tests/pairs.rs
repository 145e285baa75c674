//! Pairs: opened, kept and closed together, whatever packets come in whatever order.
