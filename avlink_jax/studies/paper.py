"""Figures from the paper, for comparison with ours (arXiv text; Tables 1, 2 and 3)."""

# Table 2's columns: the first four on the Movie Gen benchmark, the others on VGGSounds.
MOVIE_GEN = ('CLAP', 'IS', 'IB-AI', 'IB-AV')
VGGSOUNDS = ('FAD', 'FD', 'CLAP', 'IS', 'IB-AI', 'IB-AV', 'Ons. ACC')
OURS = (0.192, 6.53, 0.150, 0.155, 4.79, 18.91, 0.131, 9.21, 0.210, 0.222, 0.415)
TABLE_2 = (  # its parts, and their rows: label, name in configs/ablations.py, figures
    ('Conditioning timestep t', (
        ('Uniform samp.', 'uniform_time',
         (0.216, 4.19, 0.103, 0.111, 6.91, 27.33, 0.108, 8.12, 0.180, 0.190, 0.413)),
        ('Fixed (ours)', 'ours', OURS))),
    ('Conditioning features type', (
        ('CAVP', 'cavp',
         (0.184, 4.62, 0.116, 0.120, 3.63, 24.36, 0.098, 7.37, 0.172, 0.180, 0.383)),
        ('CAVP w/FT', 'cavp_finetuned',
         (0.169, 5.69, 0.136, 0.143, 3.33, 23.81, 0.098, 9.18, 0.197, 0.208, 0.371)),
        ('CLIP', 'clip',
         (0.171, 3.26, 0.143, 0.150, 2.49, 21.47, 0.117, 8.56, 0.234, 0.247, 0.386)),
        ('Diffusion features (ours)', 'ours', OURS))),
    ('Fusion block arrangement', (
        ('After Block-1', 'after_1',
         (0.170, 5.67, 0.129, 0.135, 5.02, 20.90, 0.114, 7.84, 0.173, 0.170, 0.433)),
        ('After Block-11', 'after_11',
         (0.182, 5.92, 0.138, 0.140, 5.30, 20.14, 0.122, 8.52, 0.184, 0.191, 0.382)),
        ('After Block-22', 'after_22',
         (0.146, 4.29, 0.120, 0.123, 6.90, 25.20, 0.098, 6.83, 0.168, 0.174, 0.37)),
        ('Interleaved (ours)', 'ours', OURS))),
    ('Feature injection', (
        ('Concat. to text w/FT', 'text_finetuned',
         (0.186, 4.12, 0.124, 0.128, 3.36, 20.35, 0.100, 9.56, 0.186, 0.196, 0.355)),
        ('Direct alignment', 'direct',
         (0.098, 2.38, 0.029, 0.030, 8.16, 42.35, 0.065, 3.90, 0.094, 0.100, 0.283)),
        ('Direct alignment w/FT', 'direct_finetuned',
         (0.110, 3.15, 0.028, 0.030, 9.26, 36.51, 0.07, 6.45, 0.129, 0.137, 0.257)),
        ('w/o symm. feature reinj.', 'no_reinjection',
         (0.120, 4.57, 0.059, 0.062, 6.60, 30.27, 0.102, 6.17, 0.136, 0.143, 0.365)),
        ('Symm. cross attention', 'cross_attention',
         (0.170, 5.70, 0.118, 0.123, 8.47, 22.30, 0.126, 8.09, 0.194, 0.210, 0.410)),
        ('Fusion blocks (ours)', 'ours', OURS))))

# Separate against shared Fusion Blocks, sampled with prompts: Table 1 (V2A), Table 3 (A2V).
JOINT_V2A = {  # name: figures in VGGSOUNDS' order
    'joint_v2a': (2.23, 13.74, 0.224, 13.44, 0.212, 0.224, 0.471),
    'ours': (1.33, 11.99, 0.228, 12.40, 0.214, 0.226, 0.540)}
TABLE_3 = ('FID', 'FVD', 'IB-AI', 'IB-AV')
JOINT_A2V = {
    'joint_a2v': (40.72, 206.30, 0.185, 0.192),
    'ours_a2v': (37.62, 158.71, 0.191, 0.201)}

# Names of our metrics that measure what a column does, by how they begin.
COLUMNS = {'FAD': 'fad_', 'FD': 'fd_', 'CLAP': 'clap', 'IS': 'is_', 'IB-AI': 'ib_ai',
           'IB-AV': 'ib_av', 'Ons. ACC': 'onset_accuracy', 'FID': 'fid_', 'FVD': 'fvd_'}


def table_2():
  """Figures of Table 2 on VGGSounds: {name: {column: figure}}."""
  return {name: dict(zip(VGGSOUNDS, figures[len(MOVIE_GEN):], strict=True))
          for _, rows in TABLE_2 for _, name, figures in rows}


def joint():
  """Figures of Tables 1 and 3: {name: {column: figure}}."""
  return ({name: dict(zip(VGGSOUNDS, figures, strict=True)) for name, figures in JOINT_V2A.items()}
          | {name: dict(zip(TABLE_3, figures, strict=True)) for name, figures in JOINT_A2V.items()})
