// Package corpus makes the seeds of fuzz targets that are real traffic: files testdata/fuzz/<target>/real-*, of what two sides say in
// memory.
package corpus
