//! Examples of ws-routing: see `README.md` beside this folder for the reading order.
