//! Where documents come from: files and directories.
