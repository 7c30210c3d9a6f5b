//! Guest memory over the test arena: every paging mode against tables built here.
