package staging

import "io"

// memLock is one that is had.
type memLock struct {
	disk *memDisk
	name string
}

func (l memLock) Close() error {
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	delete(l.disk.locked, l.name)
	return nil
}

func (d *memDisk) Lock(name string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isCut() {
		return nil, errCut
	}
	if d.locked[name] {
		return nil, ErrBusy
	}
	if d.names[name] == nil {
		if err := d.op("lock " + name); err != nil {
			return nil, err
		}
		if _, err := d.make(name, 0o600); err != nil {
			return nil, err
		}
	}
	d.locked[name] = true
	return memLock{d, name}, nil
}
