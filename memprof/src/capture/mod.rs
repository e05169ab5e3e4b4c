//! memray's capture format: records, reader, writer, and memprof's extension after the trailer.
