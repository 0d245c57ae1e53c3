//! The report of a run: the funnel, the causes, and a contact sheet of the crops.
