// Package transfer sends files and folders to a peer: verified, resumable, at the speed of the lane below it.
//
//	tree, err := source.Walk(ctx, []string{"photos"}, nil)
//	dial := func(ctx context.Context) (*session.Session, error) { return client.Connect(ctx, peerID, tag) }
//	t := transfer.Push(ctx, dial, tree, nil)               // to a peer that receives
//	for p := range t.Watch(ctx, time.Second) {
//		fmt.Println(p.Phase, p.Verified, "of", p.Bytes, p.ETA)
//	}
//	result, err := t.Wait()
//
//	service, err := transfer.NewService(&transfer.ServiceConfig{Receive: decide})
//	service.Handle(server)                                 // answers pushes, if decide takes them
//	share, err := service.Share(tree, nil)                 // and fetches of what is shared
//	t = transfer.Fetch(ctx, []transfer.Dialer{dial}, share.Ref(), "Downloads", nil) // at the other peer
//
// # Push and fetch
//
// A push begins at once: each piece is hashed while it is sent, and the hash goes with it. A fetch is of a Ref: the hash of the list of
// files, and a token. If the sender has called Tree.Hash before, the list has the files' hashes, so that the Ref pins every byte, and
// several peers that have the same files can serve one fetch together. Otherwise a Ref pins names, sizes and times, and it is the
// session that vouches for the bytes.
//
// # What holds always
//
// A file gets its name at the receiver when all of it is there, verified and on the disk, and not before. Nothing is replaced unless
// that was asked for, and nothing outside of the destination is touched: see package staging. A file that is there already, of the same
// size and time, is not sent: ReceiveOptions.Checksum compares contents. What Progress calls durable, no power cut takes away.
//
// # Losses
//
// A transfer outlives its connection: the opener dials again for Options.Patience, and goes on with what is missing. It outlives its
// process too: the receiver keeps what has come in a folder .xfer-... of the destination, where the same Push or Fetch finds it. At most
// 64 MiB of it are fetched again, and seldom more than two seconds'. A full disk pauses a transfer until there is room.
//
// # Cancellation
//
// The end of the ctx, and Transfer.Cancel, stop a transfer on both sides; what has come stays for the next time, or until
// staging.Cleanup. All goroutines have ended when Wait returns.
//
// # Limits
//
// Files of 4 TiB, and what manifest.Rules say. In memory are the list of files, 32 bytes for each piece of the files that are on
// their way, and about ten pieces: of 256 KiB, in files of more than 64 GiB of up to 16 MiB.
//
// # Stability
//
// The bytes are in SPEC.md, the Codes are for programs to compare.
package transfer
