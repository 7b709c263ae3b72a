//! What a manifest says, in the program's own terms; [`wire`](super) gives it its JSON form.
