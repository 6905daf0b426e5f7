from ftkit.compare.run import compare
def test_try(spec_of, tmp_path):
    import json,time,shutil
    t=time.time(); d=compare(spec_of('/tmp/try', equal_flops='joint'), quiet=True); print('secs',time.time()-t)
    t=time.time(); d2=compare(spec_of('/tmp/try', equal_flops='joint'), quiet=True); print('secs',time.time()-t); 
    a=json.dumps(d,sort_keys=True); assert a==json.dumps(d2,sort_keys=True)
    print({n:(f['nll']['value'], f['training_flops']['value'], f['training_steps']['value']) for n,f in d['systems'].items()})
    print(d['tests'][:2])
