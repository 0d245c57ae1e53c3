//! Is the crop good enough to train on? Features, the trained head, and how it is trained.
