package main

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFrameBytes(t *testing.T) {
	require.Equal(t, []byte{
		0, 0, 0, 2, // length
		'h', 'i',
	}, appendFrame(nil, []byte("hi")))
}

func TestFramesSurviveTheTrip(t *testing.T) {
	for _, size := range []int{0, 1, 127, 128, 65535, 65536} {
		body := bytes.Repeat([]byte{7}, size)
		got, err := readFrame(bytes.NewReader(appendFrame(nil, body)), make([]byte, 128))
		require.NoError(t, err, "size %d", size)
		require.True(t, bytes.Equal(body, got), "size %d", size)
	}
}

func TestReadFrameRejectsTruncation(t *testing.T) {
	frame := appendFrame(nil, []byte("body"))
	_, err := readFrame(bytes.NewReader(nil), nil)
	require.Equal(t, io.EOF, err)
	for n := 1; n < lengthSize; n++ {
		_, err := readFrame(bytes.NewReader(frame[:n]), nil)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", n)
	}
	for n := lengthSize; n < len(frame); n++ {
		_, err := readFrame(bytes.NewReader(frame[:n]), nil)
		require.Error(t, err, "cut at %d", n)
		require.NotEqual(t, io.EOF, err, "cut at %d", n)
	}
}

func TestReadFrameRejectsOversizeBeforeItAllocates(t *testing.T) {
	_, err := readFrame(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff}), nil)
	require.ErrorContains(t, err, "the limit is")
}
