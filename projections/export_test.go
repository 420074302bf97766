package projections

// FoldAt makes an engine fold what is collected on the way once it takes this many bytes.
func (e *Engine) FoldAt(bytes int64) { e.foldAt = bytes }
